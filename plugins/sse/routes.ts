import { z } from 'zod'
import { CoreErrors, type BackplaneError, type Clock, type Live } from '#core'
import { AccessErrors, onRefusal, type Access, type Caller } from '#contracts/access'
import { EventLog } from '#contracts/events'
import { defineRoute, type HttpAnswer, type HttpRequest, type HttpRoute } from '#contracts/http'
import type { JobUpdates } from '#contracts/job-updates'
import type { SseConfig } from './config.ts'
import { frames, type Update } from './frames.ts'
import { placeIn, projectUpdates } from './project.ts'
import type { Streams } from './streams.ts'

/** Who is refused hears so well within this time; where nothing happens the stream begins after it. */
const REFUSAL_MS = 500
const HEADERS = { 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache, no-transform', 'X-Accel-Buffering': 'no' }

const params = z.strictObject({ id: z.string().min(1).max(200) })
const query = z.strictObject({
  token: z.string().min(1).max(8_192).optional().describe('Who asks, for clients that can\'t send `Authorization`. Prefer the header: addresses are kept in many logs.'),
  last_event_id: z.string().max(40).optional().describe('As the header `Last-Event-ID`, for clients that can\'t send it.'),
})
type Request = HttpRequest<z.output<typeof params>, z.output<typeof query>>

export interface RouteDeps {
  readonly updates: JobUpdates
  readonly access: Live<Access>
  readonly events: Live<EventLog>
  readonly streams: Streams
  readonly clock: Clock
  readonly config: SseConfig
}

/** `check`: may this caller still read it? */
interface Source { readonly updates: AsyncIterable<Update>; readonly cursor?: string; check(caller: Caller): Promise<void> }

export const routes = (deps: RouteDeps): HttpRoute[] => [
  defineRoute({
    method: 'GET', path: '/sse/jobs/:id', summary: 'Streams what happens to a job, until its end',
    permission: 'jobs:read', params, query, streams: true,
    handler: request => stream(deps, request, async (after, signal) => {
      const { updates } = deps
      const { id } = request.params
      // It asks before anything else, and for somebody who has left there is nothing more.
      const check = async (caller: Caller) => void await updates.follow(caller, id, { signal: AbortSignal.abort() })[Symbol.asyncIterator]().next()
      return { updates: updates.follow(request.caller, id, { after, signal }), check }
    }),
  }),
  defineRoute({
    method: 'GET', path: '/sse/projects/:id', summary: 'Streams what happens to the jobs of a project',
    permission: 'jobs:read', params, query, streams: true,
    handler: request => stream(deps, request, async (after, signal) => {
      const { id } = request.params
      const check = (caller: Caller) => accessOf(deps).check(caller, 'jobs:read', { kind: 'project', id, project_id: id })
      await check(request.caller)
      const log = deps.events.current
      if (!log) throw CoreErrors.Service.UNAVAILABLE({ service: EventLog.id })
      const place = await placeIn(log, `project:${id}`, after)
      return { updates: projectUpdates(log, id, place, signal), cursor: String(place), check }
    }),
  }),
]

/** What can be refused is refused before the first frame, as a problem; 204 tells an EventSource that comes back after the end to stay away. */
async function stream(deps: RouteDeps, request: Request, open: (after: string, signal: AbortSignal) => Promise<Source>): Promise<HttpAnswer> {
  const { streams, clock, config } = deps
  const { caller, headers, query: { last_event_id }, signal } = request
  const { signal: mine, close } = streams.open(caller.id, signal)
  try {
    const after = headers['last-event-id'] ?? last_event_id ?? ''
    const { updates, cursor, check } = await open(String(after), mine)
    const iterator = updates[Symbol.asyncIterator]()
    const first = iterator.next()
    if ((await soon(first, clock))?.done) {
      if (mine.aborted) throw CoreErrors.Service.UNAVAILABLE({ service: 'sse' })
      close()
      return { status: 204 }
    }
    const { heartbeatMs, retryMs, recheckMs } = config
    // Its own place again, too: by the HTML standard a connection begins without one, and its first empty line would forget it.
    const options = {
      clock, heartbeatMs, retryMs, done: close, cursor: cursor ?? String(after),
      onRefusal: (refused: (why: BackplaneError) => void) =>
        onRefusal(deps.access, caller, { check, clock, everyMs: recheckMs, signal: mine }, refused),
    }
    return { headers: HEADERS, stream: frames(first, iterator, options) }
  } catch (error) {
    close()
    throw error
  }
}

function accessOf({ access }: RouteDeps): Access {
  if (!access.current) throw AccessErrors.UNAVAILABLE()
  return access.current
}

/** As `work` settles, or nothing if that takes long. */
function soon<T>(work: Promise<T>, clock: Clock): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(REFUSAL_MS, () => resolve(undefined))
    work.then(resolve, reject).finally(cancel)
  })
}
