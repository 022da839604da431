import { reasonOf } from '#core'
import { JobErrors } from '#contracts/jobs'

/** `value` as JSON text, or JOBS_NOT_JSON, JOBS_TOO_LARGE. `undefined` becomes null. */
export function jsonOf(what: string, value: unknown, limit: number): string {
  let text: string | undefined
  try { text = JSON.stringify(value ?? null) } catch (cause) { throw JobErrors.NOT_JSON({ what, reason: reasonOf(cause) }, { cause }) }
  if (text === undefined) throw JobErrors.NOT_JSON({ what, reason: `it is a ${typeof value}` })
  const bytes = text.length > limit ? text.length : Buffer.byteLength(text)
  if (bytes > limit) throw JobErrors.TOO_LARGE({ what, bytes, limit })
  return text
}
