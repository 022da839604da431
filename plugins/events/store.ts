import type { Clock } from '#core'
import type { Database, ManyStatement, Statement, Tx } from '#contracts/database'
import { EventErrors, type Cursor, type LoggedEvent, type NewEvent, type Reading, type Topic } from '#contracts/events'
import { cursorIn, eventOf, isJobTopic, rowOf, type EventRow, type NewRow } from './event.ts'

const LIMIT = { usual: 100, most: 1_000 }
const COLUMNS = 'type, project_id, created_by, job_id, seq, topics, data, at'

const INSERT_POSTGRES = `
  WITH added AS MATERIALIZED (
    SELECT events_next() AS position, * FROM json_to_recordset(CAST(? AS json)) AS given
      (type text, project_id text, created_by text, job_id text, seq bigint, topics text, data text, at bigint)),
  written AS (INSERT INTO events (position, ${COLUMNS}) SELECT position, ${COLUMNS} FROM added),
  linked AS (
    INSERT INTO event_topics (topic, cursor, position)
    SELECT t.topic, CASE WHEN starts_with(t.topic, 'job:') THEN added.seq ELSE added.position END, added.position
    FROM added, json_array_elements_text(CAST(added.topics AS json)) AS t(topic))
  SELECT position FROM added ORDER BY position`
const UNLINK = {
  sqlite: `DELETE FROM event_topics WHERE (topic, cursor) IN (
    SELECT t.value, CASE WHEN substr(t.value, 1, 4) = 'job:' THEN e.seq ELSE e.position END FROM events e, json_each(e.topics) t WHERE e.position <= ?)`,
  postgres: `DELETE FROM event_topics WHERE (topic, cursor) IN (
    SELECT t.topic, CASE WHEN starts_with(t.topic, 'job:') THEN e.seq ELSE e.position END
    FROM events e, json_array_elements_text(CAST(e.topics AS json)) AS t(topic) WHERE e.position <= ?)`,
}
const HORIZON = {
  // One writes at a time, so what is there is all that there will be.
  sqlite: 'SELECT coalesce(max(seq), 0) AS last, coalesce(max(seq), 0) AS safe FROM sqlite_sequence WHERE name = \'events\'',
  postgres: 'SELECT last, safe FROM events_horizon()',
}

/** `last`: the last position that was given out; up to `safe` no event can come any more. */
export interface Horizon { readonly last: number; readonly safe: number }
export interface Page {
  readonly events: readonly LoggedEvent[]
  /** Up to here everything of what was asked for is in the page or before it. */
  readonly through: number
  /** Up to here events were removed. */
  readonly removed: number
}
type Found = { readonly removed: number; readonly first?: number | null } & (EventRow | { readonly position: null })

/** Writes the rows with their topics, and resolves to their positions. */
function appendPostgres(database: Database) {
  const insert: Statement<{ position: number }> = database.prepare(INSERT_POSTGRES)
  return async (rows: readonly NewRow[], tx: Tx) => (await insert.all([JSON.stringify(rows)], tx)).map(row => row.position)
}

function appendSqlite(database: Database) {
  const insert: ManyStatement<{ position: number }> = database.prepareMany(
    `INSERT INTO events (${COLUMNS}) VALUES :rows RETURNING position`, ['text', 'text', 'text', 'text', 'bigint', 'text', 'text', 'bigint'])
  const link = database.prepareMany('INSERT INTO event_topics (topic, cursor, position) VALUES :rows', ['text', 'bigint', 'bigint'])
  return async (rows: readonly NewRow[], tx: Tx) => {
    const values = rows.map(row => [row.type, row.project_id, row.created_by, row.job_id, row.seq, row.topics, row.data, row.at])
    // Given out in the order of the rows; RETURNING promises none.
    const positions = (await insert.all(values, tx)).map(added => added.position).sort((one, two) => one - two)
    const topics = rows.flatMap((row, at) => (JSON.parse(row.topics) as string[]).map(topic => ({ topic, row, position: positions[at]! })))
    await link.run(topics.map(({ topic, row, position }) => [topic, cursorIn(topic, row, position), position]), tx)
    return positions
  }
}

/** The tables of the log. */
export class EventStore {
  readonly #append: (rows: readonly NewRow[], tx: Tx) => Promise<readonly number[]>
  readonly #horizon: Statement<Horizon>
  readonly #topic: Statement<Found>
  readonly #unlink: Statement
  readonly #oldest: Statement<{ position: number; at: number }>
  readonly #delete: Statement
  readonly #window: Statement

  constructor(readonly database: Database, readonly clock: Clock) {
    const { dialect } = database
    this.#append = dialect === 'postgres' ? appendPostgres(database) : appendSqlite(database)
    this.#horizon = database.prepare(HORIZON[dialect])
    // With the window in the same statement: what is removed between two would be lost without a word.
    this.#topic = database.prepare(
      `SELECT w.removed, (SELECT min(cursor) FROM event_topics WHERE topic = ?) AS first, e.* FROM event_window w LEFT JOIN (
         SELECT t.cursor, e.* FROM event_topics t JOIN events e ON e.position = t.position
         WHERE t.topic = ? AND t.cursor > ? AND t.position <= ? ORDER BY t.cursor LIMIT ?) e ON 1 = 1 ORDER BY e.cursor`)
    this.#oldest = database.prepare('SELECT position, at FROM events WHERE position <= ? ORDER BY position LIMIT ?')
    this.#unlink = database.prepare(UNLINK[dialect])
    this.#delete = database.prepare('DELETE FROM events WHERE position <= ?')
    this.#window = database.prepare('UPDATE event_window SET removed = ? WHERE removed < ?')
  }

  /** Resolves to their positions. */
  async append(tx: Tx, events: readonly NewEvent[]): Promise<readonly number[]> {
    const now = this.clock.now()
    const rows = events.map(event => rowOf(event, now))
    if (!rows.length) return []
    return this.#append(rows, tx)
  }

  async horizon(): Promise<Horizon> { return (await this.#horizon.get([]))! }

  async read(topic: Topic, after: Cursor, limit: number = LIMIT.usual): Promise<Reading> {
    if (!Number.isSafeInteger(after) || after < 0) throw EventErrors.INVALID({ reason: 'a cursor is a whole number, and 0 the first one' })
    const most = Math.min(Math.max(Math.trunc(limit) || 1, 1), LIMIT.most)
    const byJob = isJobTopic(topic)
    // A job's row is locked from one event to the commit, so its events come in order anyway.
    const { last, safe } = byJob ? { last: Number.MAX_SAFE_INTEGER, safe: Number.MAX_SAFE_INTEGER } : await this.horizon()
    const found = await this.#topic.all([topic, topic, after, safe, most])
    const { removed, first = null } = found[0]!
    const events = eventsOf(found)
    const end = events.at(-1)
    if (byJob) {
      const gap = removed > 0 && (first === null || first > after + 1)
      return { events, next: end?.seq ?? after, gap }
    }
    // A cursor beyond the end is of a log that was put back to an earlier state.
    const beyond = after > last
    const next = events.length === most ? end!.position : beyond ? safe : Math.max(after, safe)
    return { events, next, gap: after < removed || beyond }
  }

  /** How to read all events, or those of some types, in order of position. */
  reader(types?: readonly string[]): (after: number, limit: number, through?: number) => Promise<Page> {
    const only = types ? `AND type IN (${types.map(() => '?').join(', ')})` : ''
    const statement = this.database.prepare<Found>(
      `SELECT w.removed, e.* FROM event_window w LEFT JOIN (
         SELECT * FROM events WHERE position > ? AND position <= ? ${only} ORDER BY position LIMIT ?) e ON 1 = 1 ORDER BY e.position`)
    return async (after, limit, through) => {
      const until = through ?? (await this.horizon()).safe
      const found = await statement.all([after, until, ...(types ?? []), limit])
      const events = eventsOf(found)
      return { events, removed: found[0]!.removed, through: events.length === limit ? events.at(-1)!.position : Math.max(after, until) }
    }
  }

  /** Removes the oldest events beyond `count`, or from before `before`, in one transaction; resolves to how many, at most `limit`. */
  async remove(count: number, before: number, limit: number): Promise<number> {
    const { last, safe } = await this.horizon()
    const oldest = await this.#oldest.all([safe, limit])
    // By position and not by counting: that would take long in a large log. Positions that were rolled back count too.
    const kept = oldest.findIndex(({ position, at }) => position > last - count && at >= before)
    const old = kept < 0 ? oldest : oldest.slice(0, kept)
    const cut = old.at(-1)?.position
    if (cut === undefined) return 0
    await this.database.transaction(async tx => {
      await this.#unlink.run([cut], tx)
      await this.#delete.run([cut], tx)
      await this.#window.run([cut, cut], tx)
    })
    return old.length
  }
}

const eventsOf = (found: readonly Found[]): LoggedEvent[] => found.flatMap(row => (row.position === null ? [] : [eventOf(row)]))
