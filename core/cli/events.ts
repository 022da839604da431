import { setTimeout as sleep } from 'node:timers/promises'
import { HostErrors } from '../host/world.ts'
import type { ServerEvent } from './command.ts'

const LONGEST = 16 * 1_048_576
const TRIES = 30
interface Following { readonly signal: AbortSignal; readonly lastEventId?: string }
type Fetch = (path: string, init: RequestInit) => Promise<Response>

/** The events of an answer of type text/event-stream, as the HTML standard reads it; `pause` hears how long to wait before the next try. */
export async function* readEvents({ body }: Response, pause?: (ms: number) => void): AsyncGenerator<ServerEvent> {
  let [id, event, data] = ['', '', '']
  for await (const line of linesOf(body ?? new ReadableStream({ start: each => each.close() }))) {
    if (line === '') {
      if (data) yield { id, event: event || 'message', data: data.slice(0, -1) }
      event = data = ''
      continue
    }
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line) as unknown as [string, string, string]
    if (field === 'data') data += `${value}\n`
    else if (field === 'event') event = value
    else if (field === 'id' && !value.includes('\0')) id = value
    else if (field === 'retry' && /^\d{1,6}$/.test(value)) pause?.(Number(value))
    if (data.length > LONGEST) throw HostErrors.SERVER_REFUSED({ reason: 'one of its events is too long to be read', advice: 'Ask for less.' })
  }
}

async function* linesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const bytes of body) {
    rest += decoder.decode(bytes, { stream: true })
    // A CR at the end may be half of a CRLF.
    const lines = rest.split(/\r\n|\n|\r(?=[^])/)
    rest = lines.pop()!
    if (rest.length > LONGEST) throw HostErrors.SERVER_REFUSED({ reason: 'one of its events is too long to be read', advice: 'Ask for less.' })
    yield* lines
  }
}

/** Follows a path as a browser's EventSource does: a connection that breaks or ends is made again from the last id, until the server answers 204. */
export async function* followEvents(fetch: Fetch, path: string, { signal, lastEventId = '' }: Following): AsyncGenerator<ServerEvent> {
  let [last, pauseMs, failures, heard] = [lastEventId, 1_000, 0, false]
  while (!signal.aborted) {
    try {
      const answer = await fetch(path, { signal, headers: { Accept: 'text/event-stream', ...(last && { 'Last-Event-ID': last }) } })
      if (answer.status === 204) return
      if (!answer.ok) throw await refusal(answer)
      for await (const event of readEvents(answer, ms => { pauseMs = ms })) {
        [last, failures, heard] = [event.id, 0, true]
        yield event
      }
    } catch (error) {
      if (signal.aborted) return
      if (!heard || HostErrors.SERVER_REFUSED.is(error) || ++failures === TRIES) throw error
    }
    await sleep(pauseMs, undefined, { signal }).catch(() => {})
  }
}

/** What the server says no with: for good, or for the moment. */
async function refusal(answer: Response): Promise<Error> {
  const { detail, title, fix } = await answer.json().catch(() => ({})) as Partial<Record<'detail' | 'title' | 'fix', string>>
  const reason = detail ?? title ?? `it answered ${answer.status}`
  if (answer.status === 429 || answer.status >= 500) return HostErrors.SERVER_BUSY({ reason, advice: fix ?? 'Try again in a moment.' })
  return HostErrors.SERVER_REFUSED({ reason, advice: fix ?? 'See the server\'s log.' })
}
