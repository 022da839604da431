// The work that the shows give to the real product, as a plugin of a third party would contribute it.
import { definePlugin } from 'backplane'
import { Agent } from 'backplane/contracts/agents'
import { JobType } from 'backplane/contracts/jobs'
import { z } from 'zod'

const sleep = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms)
  signal.addEventListener('abort', () => { clearTimeout(timer); reject(signal.reason) }, { once: true })
})

export default definePlugin({
  name: 'chaos',
  summary: 'Work that is slow, kills its process, or blocks it',
  config: z.strictObject({ sink: z.url().describe('Where effects are counted.') }),
  contributes: [JobType, Agent],
  setup(ctx) {
    const tell = async (kind, job, more = '') => {
      const scopes = [`worker:${process.pid}`, `project:${job.project_id}`, ...(job.agent ? [`agent:${job.agent}`] : [])].join()
      const answer = await fetch(`${ctx.config.sink}/${kind}/${job.id}${more}`, { method: 'POST', headers: { 'x-scopes': scopes } })
      if (!answer.ok) throw new Error(`the sink answered ${answer.status}`)
      return answer.json()
    }
    const type = (name, summary, run) => ctx.contribute(JobType, {
      type: name, summary, input: z.strictObject({ ms: z.number().min(0).max(600_000).default(0) }), permission: 'chaos:run', run,
    })

    // The first effect may be told twice and counts once, by its key; the naked one counts each time.
    const work = async (job, ms, { signal, step }) => {
      await tell('begun', job)
      await sleep(ms, signal)
      await step('effect', () => tell('effect', job))
      await tell('naked', job)
    }
    type('effect', 'Takes its time, then has an effect with a key and one without', async run => {
      await work(run.job, run.input.ms, run)
      return { attempt: run.job.attempt }
    })
    ctx.contribute(Agent, {
      name: 'scarce', summary: 'Does the same as an agent', input: z.strictObject({ ms: z.number().min(0).max(600_000) }),
      async run(run, { ms }) {
        await work({ id: run.job_id, project_id: run.project_id, agent: run.agent }, ms, run)
        return 'done'
      },
    })

    ctx.contribute(Agent, {
      name: 'patient', summary: 'Three steps that must not run twice', input: z.strictObject({ ms: z.number().min(0).max(600_000) }),
      async run({ job_id, project_id, agent, signal, step }, { ms }) {
        for (const name of ['a', 'b', 'c']) {
          await step(name, () => tell('step', { id: job_id, project_id, agent }, `/${name}`))
          await sleep(ms / 3, signal)
        }
        return 'done'
      },
    })

    type('talk', 'Three steps that must not run twice, and fifteen words', async ({ job, input, signal, step, emit }) => {
      for (const name of ['a', 'b', 'c']) {
        await step(name, () => tell('step', job, `/${name}`))
        for (let nth = 1; nth <= 5; nth++) {
          emit({ type: 'token', content: `${name}${nth} ` })
          await sleep(input.ms / 15, signal)
        }
      }
      return { attempt: job.attempt }
    })

    type('poison', 'Kills the process that runs it', async ({ job }) => {
      await tell('begun', job)
      process.kill(process.pid, 'SIGKILL')
      await new Promise(() => {})
    })

    type('block', 'Holds the event loop, in its first attempt', async ({ job, input }) => {
      await tell('begun', job)
      if (job.attempt === 1) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, input.ms)
      await tell('naked', job)
      return { attempt: job.attempt }
    })

    type('brittle', 'Fails for good while the sink says so', async ({ job }) => {
      const { fails } = await tell('naked', job)
      if (fails) throw Object.assign(new Error('it broke'), { retryable: false })
      return { attempt: job.attempt }
    })

    type('steps', 'Three steps that must not run twice', async ({ job, input, signal, step }) => {
      for (const name of ['a', 'b', 'c']) {
        await step(name, () => tell('step', job, `/${name}`))
        await sleep(input.ms, signal)
      }
      return { attempt: job.attempt }
    })
  },
})
