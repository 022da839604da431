import { followEvents } from '../../core/cli/events.ts'
import type { Stage } from './stage.ts'

interface Update { readonly type: string; readonly seq: number; readonly content?: string; readonly job_id: string; readonly final: boolean }

/** What somebody saw of a job, as the page of a browser does: one stream, taken up again from its last id whenever it ends. */
export interface Watched { readonly id: string; readonly updates: readonly Update[]; readonly connections: number }

export async function watch(url: string, id: string): Promise<Watched> {
  const updates: Update[] = []
  let connections = 0
  const connect = (path: string, init: RequestInit) => { connections++; return fetch(url + path, init) }
  for await (const { data } of followEvents(connect, `/sse/jobs/${id}`, { signal: AbortSignal.timeout(120_000) })) updates.push(JSON.parse(data) as Update)
  // The last one is the answer that all is told.
  return { id, updates, connections: connections - 1 }
}

/** Each saw all that the log has, in order and once, and of what was said the whole. */
export async function sawAll(stage: Stage, watched: readonly Watched[], text: string): Promise<void> {
  const rows = await stage.rows<{ job_id: string; type: string; seq: number | string }>(
    `SELECT job_id, type, seq FROM events WHERE job_id IS NOT NULL AND type <> 'job.token' ORDER BY job_id, position`)
  const logged = new Map<string, string[]>()
  for (const { job_id, type, seq } of rows) logged.set(job_id, [...logged.get(job_id) ?? [], `${seq} ${type.slice('job.'.length)}`])
  for (const { id, updates } of watched) {
    const seen = updates.filter(each => each.type !== 'token').map(({ seq, type }) => `${seq} ${type}`)
    const last = updates.findLastIndex(each => each.type === 'started')
    const said = updates.slice(last).map(each => each.content ?? '').join('')
    stage.expect(seen.join() === logged.get(id)!.join(), `the stream of ${id} was ${seen.join(', ')} instead of ${logged.get(id)!.join(', ')}`)
    stage.expect(said === text, `the stream of ${id} said "${said}"`)
  }
}
