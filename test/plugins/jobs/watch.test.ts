import assert from 'node:assert/strict'
import { eventually } from '#core/testing'
import { Jobs, type JobContext } from '#contracts/jobs'
import { serverAt } from '../../../core/cli/client.ts'
import commands from '../../../plugins/jobs/commands.ts'
import { gist, openStreams, served, submit, talk, TEXT, WHOLE } from '../sse/kit.ts'
import { jobType, operator } from './kit.ts'

describe('jobs watch', () => {
  async function watch(t: { url: string }, id: string, { json = false, tty = false, signal = new AbortController().signal } = {}) {
    const printed = { out: '', err: '' }
    const code = await commands.find(each => each.name === 'jobs watch')!.run({
      args: [id], options: {}, json, tty, signal, stdin: async function* () {}, get: () => assert.fail(), server: serverAt(t.url),
      out: text => { printed.out += `${text}\n` }, write: text => { printed.out += text }, err: text => { printed.err += `${text}\n` },
    })
    return { code, ...printed }
  }

  it('prints what the job says, tells what it does, and exits with how it ended', async () => {
    const bad = jobType('bad', async () => { throw new Error('x') })
    await using t = await served({ types: [talk(), bad, jobType('quiet', async () => ({ n: 1 })), jobType('slow', () => new Promise(() => {}))] })
    const said = await watch(t, await submit(t))
    assert.deepEqual([said.code, said.out], [0, `${TEXT.slice(0, TEXT.indexOf('word30'))}\n${TEXT.slice(TEXT.indexOf('word30'))}`.replace(/(word(20|40) )/g, '\n$1') + '\n'])
    assert.equal(said.err, 'created\nstarted, attempt 1\n0 %\n20 %\n> calc 1\n< calc 2\n40 %\ncompleted\n')
    assert.deepEqual(await watch(t, await submit(t, { type: 'quiet' })), { code: 0, out: '{\n  "n": 1\n}\n', err: 'created\nstarted, attempt 1\ncompleted\n' })
    const dead = await watch(t, await submit(t, { type: 'bad', max_attempts: 1 }))
    assert.deepEqual([dead.code, dead.err.includes('dead: JOBS_FAILED')], [1, true])
    const lines = (await watch(t, await submit(t), { json: true })).out.trim().split('\n').map(line => JSON.parse(line))
    assert.deepEqual(gist(lines), WHOLE)
    await assert.rejects(watch(t, 'nobody'), { code: 'HOST_SERVER_REFUSED', message: /there is no job "nobody"/ })
    const slow = await submit(t, { type: 'slow' })
    const gone = new AbortController()
    const left = watch(t, slow, { signal: gone.signal })
    await eventually('it to be watched', () => openStreams(t) === 1)
    gone.abort()
    assert.deepEqual([(await left).code, (await left).err.includes(`backplane jobs cancel ${slow}`)], [130, true])
    assert.equal((await t.get(Jobs).get(operator, slow)).status, 'running')
    const cancelled = watch(t, slow)
    await t.get(Jobs).cancel(operator, slow)
    assert.equal((await cancelled).code, 3)
  })

  it('keeps from a terminal what would steer it', async () => {
    const sly = jobType('sly', async ({ emit }: JobContext) => { emit({ type: 'token', content: 'a\x1b[2Jb\r\u009bc\td\n' }) })
    await using t = await served({ types: [sly] })
    assert.equal((await watch(t, await submit(t, { type: 'sly' }), { tty: true })).out, 'a[2Jbc\td\n')
    assert.equal((await watch(t, await submit(t, { type: 'sly' }))).out, 'a\x1b[2Jb\r\u009bc\td\n')
  })
})
