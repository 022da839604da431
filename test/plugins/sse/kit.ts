import assert from 'node:assert/strict'
import type { TestRuntime } from '#core/testing'
import { HttpServer } from '#contracts/http'
import { Jobs, type JobContext, type JobRequest } from '#contracts/jobs'
import { Metric } from '#contracts/metrics'
import { readEvents } from '../../../core/cli/events.ts'
import cluster from '../../../plugins/cluster/index.ts'
import events from '../../../plugins/events/index.ts'
import http from '../../../plugins/http/index.ts'
import sse from '../../../plugins/sse/index.ts'
import { jobType, openAccess, operator, runtime, type KitOptions } from '../jobs/kit.ts'

export { gate } from '../jobs/kit.ts'

export type Access = Parameters<typeof openAccess>[0]
const WORDS = Array.from({ length: 60 }, (_, at) => `word${at} `)
export const TEXT = WORDS.join('')

/** Says sixty words with a tool in their midst, and ends when it may. */
export const talk = (may: Promise<void> = Promise.resolve()) => jobType('talk', async ({ emit }: JobContext) => {
  for (const [at, content] of WORDS.entries()) {
    if (at === 30) { emit({ type: 'tool_start', tool: 'calc', call_id: 'c', input: 1 }); emit({ type: 'tool_end', tool: 'calc', call_id: 'c', output: 2 }) }
    if (at % 20 === 0) emit({ type: 'progress', percent: at })
    emit({ type: 'token', content })
    await new Promise(resolve => setTimeout(resolve, 2))
  }
  await may
  return 'done'
})

export async function served({ access = {}, config = {}, ...options }: KitOptions & { access?: Access; config?: Record<string, unknown> } = {}) {
  const t = await runtime({
    ...options, services: [openAccess({ identify: async () => operator, admitBind: async () => {}, ...access })],
    plugins: [cluster, { plugin: events, config: { pollMs: 100 } }, { plugin: http, config: { port: 0 } }, { plugin: sse, config }, ...(options.plugins ?? [])],
  })
  return Object.defineProperty(t, 'url', { get: () => t.get(HttpServer).url }) as TestRuntime & { url: string }
}
export const submit = async (t: TestRuntime, request: Partial<JobRequest> = {}) => (await t.get(Jobs).submit(operator, { type: 'talk', input: null, ...request })).id
export const openStreams = (t: TestRuntime) => t.runtime.collect(Metric).find(each => each.name === 'sse_streams')!.samples()[0]?.value ?? 0

export async function read(response: Response, until: (update: any) => boolean = () => false) {
  const found: any[] = []
  for await (const { id, data } of readEvents(response)) {
    found.push(JSON.parse(data))
    assert.equal(found.at(-1).cursor, id)
    if (until(found.at(-1))) break
  }
  return found
}
export const gist = (updates: readonly any[]) => [updates.map(each => each.content ?? '').join(''), ...updates.filter(each => each.type !== 'token').map(each => each.type)]
export const WHOLE = [TEXT, 'created', 'started', 'progress', 'progress', 'tool_start', 'tool_end', 'progress', 'completed']
