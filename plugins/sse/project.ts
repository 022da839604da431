import type { EventLog, LoggedEvent } from '#contracts/events'
import type { JobError, JobStatus } from '#contracts/jobs'
import type { Update } from './frames.ts'
import { SseErrors } from './contract.ts'

const FINAL: readonly JobStatus[] = ['completed', 'dead', 'cancelled']

/** The cursor that was sent, or the end of the topic; for who sends none it begins there. */
export async function placeIn(log: EventLog, topic: string, cursor: string): Promise<number> {
  if (!cursor) return (await log.read(topic, Number.MAX_SAFE_INTEGER, 1)).next
  if (!/^(0|[1-9]\d{0,14})$/.test(cursor)) throw SseErrors.CURSOR_INVALID({ cursor: cursor.slice(0, 40) })
  return Number(cursor)
}

/** What happens to the jobs of a project, after that place. A `gap` says that some of it is gone. */
export async function* projectUpdates(log: EventLog, project: string, after: number, signal: AbortSignal): AsyncGenerator<Update, void> {
  const topic = `project:${project}`
  // Before the log is read: what is written in between must be in one of the two.
  const tail = log.tail([topic], signal)
  let at = after
  for (let more = true; more && !signal.aborted;) {
    const { events, next, gap } = await log.read(topic, at)
    if (gap) yield { cursor: String(next), type: 'gap', project_id: project, timestamp: new Date().toISOString() } as Update
    for (const event of events) if (event.type.startsWith('job.')) yield updateOf(event)
    more = events.length > 0
    at = next
  }
  for await (const event of tail) if (event.position > at && event.type.startsWith('job.')) yield updateOf(event)
}

type EventData = { id?: string; type?: string; status: JobStatus; error?: JobError | null; result?: unknown }

function updateOf({ type, at, data, job_id, project_id, seq, position }: LoggedEvent): Update {
  const { id: _id, type: _type, status, error, result, ...rest } = data as EventData
  return {
    ...rest, cursor: String(position), type: type.slice('job.'.length), job_id, project_id, status, final: FINAL.includes(status), seq,
    timestamp: new Date(at).toISOString(), ...(status === 'completed' && result !== undefined && { result }), ...(error && { error }),
  } as Update
}
