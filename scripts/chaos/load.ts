import type { Job } from '#contracts/jobs'
import { pause } from './random.ts'

/** What a caller gives up at; the product answers sooner. */
const PATIENCE_MS = 10_000

export interface Answer { readonly status: number; readonly body: any; readonly ms: number; readonly retryAfter: number | undefined }

/** One request. Status 0: there was no answer. */
export async function ask(url: string, method = 'GET', body?: unknown, patienceMs = PATIENCE_MS): Promise<Answer> {
  const from = performance.now()
  try {
    const answer = await fetch(url, {
      method, signal: AbortSignal.timeout(patienceMs),
      ...(body !== undefined && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    const retry = answer.headers.get('retry-after')
    return {
      status: answer.status, body: text ? JSON.parse(text) : undefined, ms: performance.now() - from,
      retryAfter: retry === null ? undefined : Number(retry),
    }
  } catch (error) { return { status: 0, body: String(error), ms: performance.now() - from, retryAfter: undefined } }
}

export const post = (url: string, body: unknown, patienceMs?: number): Promise<Answer> => ask(url, 'POST', body, patienceMs)

/** All of them, or it throws: for a product that nobody disturbs. */
export async function submitAll(url: string, requests: readonly unknown[]): Promise<string[]> {
  const ids: string[] = []
  for (let from = 0; from < requests.length; from += 500) {
    const { status, body } = await post(`${url}/api/v1/jobs/batch`, { jobs: requests.slice(from, from + 500) })
    if (status !== 202) throw new Error(`a batch was answered ${status}: ${JSON.stringify(body)}`)
    ids.push(...(body.items as Job[]).map(each => each.id))
  }
  return ids
}

/** Goes on until it was acknowledged. What was not is no promise. */
export async function insist(url: () => string, requests: readonly unknown[], refused: () => void): Promise<string[]> {
  for (;;) {
    const { status, body, retryAfter } = await post(`${url()}/api/v1/jobs/batch`, { jobs: requests })
    if (status === 202) return (body.items as Job[]).map(each => each.id)
    if (![0, 429, 503, 504].includes(status)) throw new Error(`a batch was answered ${status}: ${JSON.stringify(body)}`)
    refused()
    await pause(Math.min(1_000, (retryAfter ?? 0.1) * 1_000))
  }
}
