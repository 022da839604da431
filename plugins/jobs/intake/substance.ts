import { createHash } from 'node:crypto'
import type { JobRequest } from '#contracts/jobs'

/** Keys in one order, so that the same data has the same text whoever wrote it. */
const sorted = (_key: string, value: unknown): unknown => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  // Entries, not assignments: `__proto__` is a name like any other in JSON.
  return Object.fromEntries(Object.entries(value).sort(([one], [two]) => (one < two ? -1 : 1)))
}

/** Tells requests apart that were sent with one idempotency key; `agent`, `input` and `metadata` as they are stored. A hash: inputs may be large. */
export function substanceOf(request: JobRequest, agent: string | null, input: unknown, metadata: unknown): string {
  const { type, priority, max_attempts, timeout_ms, delay_ms, run_at, backoff, parent_id, dedupe } = request
  const how = [priority, max_attempts, timeout_ms, delay_ms, run_at, backoff].map(each => each ?? null)
  // Only if they are there: what was sent before they could be must be the same request still.
  if (parent_id !== undefined || dedupe) how.push(parent_id ?? null, dedupe?.key ?? null)
  if (dedupe?.mode === 'replace' || dedupe?.ttl_ms) how.push(dedupe.mode ?? null, dedupe.ttl_ms ?? null)
  const text = JSON.stringify([type, agent, input, metadata, ...how], sorted)
  return createHash('sha256').update(text).digest('base64url')
}
