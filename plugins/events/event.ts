import { EventErrors, type LoggedEvent, type NewEvent, type Topic } from '#contracts/events'

const LIMIT = 65_536
const TOPICS = 32
const TOPIC = 512
const JOB = 'job:'

/** A row of `events`. */
export interface EventRow extends Omit<LoggedEvent, 'topics' | 'data' | 'job_id' | 'seq'> {
  readonly topics: string
  readonly data: string
  readonly job_id: string | null
  readonly seq: number | null
}
export type NewRow = Omit<EventRow, 'position'>

export const isJobTopic = (topic: Topic): boolean => topic.startsWith(JOB)
/** Of a topic of an event: where the event stands in it. */
export const cursorIn = (topic: Topic, { seq }: Pick<NewRow, 'seq'>, position: number): number => (isJobTopic(topic) ? seq! : position)

const invalid = (reason: string) => EventErrors.INVALID({ reason })

function jsonOf(type: string, data: unknown): string {
  let text: string
  try { text = JSON.stringify(data) ?? 'null' } catch (cause) { throw EventErrors.INVALID({ reason: `the data of event "${type}" is no plain data` }, { cause }) }
  const bytes = Buffer.byteLength(text)
  if (bytes > LIMIT) throw EventErrors.TOO_LARGE({ type, bytes, limit: LIMIT })
  return text
}

/** What is written of an event. Throws EVENTS_TOO_LARGE, EVENTS_INVALID. */
export function rowOf({ type, topics, project_id, created_by, job_id, seq, data }: NewEvent, at: number): NewRow {
  // PostgreSQL can not keep U+0000 and halves of a character; what SQLite takes must not fail on the way to it.
  for (const text of [type, project_id, created_by, job_id ?? '', ...topics]) if (/[\0\p{Surrogate}]/u.test(text)) throw invalid(`event "${type}" holds a character that can't be kept`)
  if (!type) throw invalid('an event has no type')
  if (topics.length > TOPICS) throw invalid(`event "${type}" has ${topics.length} topics, more than ${TOPICS}`)
  if (seq !== undefined && (job_id === undefined || !Number.isSafeInteger(seq) || seq < 1)) throw invalid(`event "${type}" has a seq that is no count of a job's events`)
  for (const topic of topics) {
    if (!topic || Buffer.byteLength(topic) > TOPIC) throw invalid(`event "${type}" has a topic that is empty or has more than ${TOPIC} bytes`)
    if (isJobTopic(topic) && (seq === undefined || topic !== `${JOB}${job_id}`)) throw invalid(`event "${type}" is not one of "${topic}": it needs job_id and seq of that job`)
  }
  const listed = JSON.stringify([...new Set(topics)])
  return { type, project_id, created_by, job_id: job_id ?? null, seq: seq ?? null, topics: listed, data: jsonOf(type, data), at }
}

export const eventOf = ({ position, type, topics, project_id, created_by, job_id, seq, data, at }: EventRow): LoggedEvent => ({
  position, at, type, topics: JSON.parse(topics) as string[], project_id, created_by,
  ...(job_id !== null && { job_id }), ...(seq !== null && { seq }), data: JSON.parse(data) as unknown,
})
