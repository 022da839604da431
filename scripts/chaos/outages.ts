import type { Instance } from './instance.ts'
import { ask, post, type Answer } from './load.ts'
import { pause } from './random.ts'
import type { Show } from './show.ts'
import type { Stage } from './stage.ts'

const ANSWER_MS = 2_000
const STOP_MS = 30_000
/** A lock in Redis is over after 5 s, which is seen 2.5 s later; a lease in the database after 8 s, which count anew once that is back. */
const STILL_MS = { redis: 10_000, database: 20_000 }

const request = { type: 'effect', input: { ms: 0 } }
const ready = async (url: string) => await ask(`${url}/health/ready`)

/** One way of being away. */
interface Outage {
  /** As it stands in the report. */
  readonly name: string
  /** What readiness calls it. */
  readonly says: RegExp
  /** Submitting goes on, by the outbox, and so the process is ready. */
  readonly accepts: boolean
  readonly ms: number
  begin(): Promise<void>
  end(): Promise<void>
}

function outagesOf(stage: Stage): Outage[] {
  const { redis, postgres } = stage
  const services = [
    ...(redis ? [{ name: 'Redis', says: /redis/, accepts: true, server: redis }] : []),
    ...(postgres ? [{ name: 'PostgreSQL', says: /database/, accepts: false, server: postgres }] : []),
  ]
  return services.flatMap(({ server, name, ...rest }) => {
    let thaw = () => {}
    return [
      { ...rest, name, ms: stage.many(30_000), begin: () => server.crash(), end: () => server.restart() },
      // Its processes stand still: connections are kept and taken, and nothing is answered.
      { ...rest, name: `${name} (silent)`, ms: stage.many(15_000, 3_000), begin: async () => { thaw = await server.freeze() }, end: async () => { thaw() } },
    ]
  })
}

const told = async (url: string, { says, accepts }: Outage): Promise<boolean> => {
  const { status, body } = await ready(url)
  return status === (accepts ? 200 : 503) && says.test(JSON.stringify(body))
}

/** It answers within its time what it must while the service is away. */
async function submits(stage: Stage, { url, lines }: Instance, { name, accepts }: Outage): Promise<void> {
  const answers = await Promise.all(Array.from({ length: 5 }, () => post(`${url}/api/v1/jobs`, request)))
  const slowest = Math.round(Math.max(...answers.map(each => each.ms)))
  stage.measure(`ms to answer without ${name}`, slowest)
  const wanted = accepts ? 202 : 503
  const others = answers.filter(each => each.status !== wanted)
  stage.expect(others.length === 0, `without ${name} submitting was answered ${others[0]?.status}, not ${wanted}: ${JSON.stringify(others[0]?.body)}\n${lines.filter(line => line.includes('"error"')).at(-1)}`)
  stage.expect(slowest <= ANSWER_MS, `without ${name} an answer took ${slowest} ms`)
}

/** Callers that go on while it goes away and comes back, each request with a key, until all of them were acknowledged. */
class Callers {
  readonly #answers: Answer[] = []
  readonly #all: Promise<void>[]
  readonly #over = new AbortController()
  constructor(readonly stage: Stage, readonly url: string, readonly outage: Outage) {
    this.#all = Array.from({ length: 8 }, (_, at) => this.#call(at, this.#over.signal))
  }

  async #call(caller: number, over: AbortSignal): Promise<void> {
    const { name } = this.outage
    for (let at = 0; !over.aborted; at++) {
      const asked = { ...request, idempotency_key: `${name} ${caller} ${at}`, metadata: { caller: name } }
      for (let done = false; !done;) {
        const answer = await post(`${this.url}/api/v1/jobs`, asked)
        this.#answers.push(answer)
        done = answer.status === 202
        if (!done) await pause(Math.min(500, (answer.retryAfter ?? 0.5) * 1_000))
      }
      await pause(20)
    }
  }

  /** Nobody waited too long or was told nothing of trying again, and there is one job for each request that was acknowledged. */
  async end(): Promise<void> {
    const { stage, outage: { name } } = this
    this.#over.abort()
    await Promise.all(this.#all)
    const made = this.#answers.filter(each => each.status === 202)
    const refused = this.#answers.filter(each => each.status !== 202)
    const slowest = Math.round(Math.max(...this.#answers.map(each => each.ms)))
    const isDoubtful = ({ status, body }: Answer) => status === 504 && body?.code === 'DATABASE_IN_DOUBT'
    const doubtful = refused.filter(isDoubtful).length
    stage.measure(`requests while ${name} went and came`, `${made.length} made, ${refused.length} refused, ${doubtful} of these in doubt, slowest ${slowest} ms`)
    stage.expect(slowest <= ANSWER_MS, `a submit took ${slowest} ms while ${name} went away`)
    const odd = refused.find(each => !isDoubtful(each) && (each.status !== 503 || each.retryAfter === undefined))
    stage.expect(!odd, `a submit was answered ${odd?.status} without ${name}, Retry-After ${odd?.retryAfter}: ${JSON.stringify(odd?.body)}`)
    const kept = await stage.count(`metadata LIKE '%"${name}"%'`)
    stage.expect(kept === made.length, `${made.length} requests were acknowledged while ${name} went and came, and there are ${kept} jobs of them`)
  }
}

async function away(stage: Stage, outage: Outage): Promise<void> {
  const { name, ms } = outage
  const instance = await stage.start(10)
  const callers = new Callers(stage, instance.url, outage)
  await pause(500)
  await outage.begin()
  const gone = performance.now()
  try {
    await stage.until(`readiness to tell that ${name} is away`, () => told(instance.url, outage), 10_000)
    stage.measure(`ms to tell that ${name} is away`, Math.round(performance.now() - gone))
    await submits(stage, instance, outage)
    await pause(ms - (performance.now() - gone))
    stage.expect(instance.up, `the process ended while ${name} was away: ${instance.lines.slice(-5).join('\n')}`)
  } finally { await outage.end() }
  const from = performance.now()
  await stage.until(`readiness after ${name} is back`, async () => { const { status, body } = await ready(instance.url); return status === 200 && !body.degraded.length }, 20_000)
  stage.measure(`ms to ready after ${name}`, Math.round(performance.now() - from))
  const made = await post(`${instance.url}/api/v1/jobs`, request)
  stage.expect(made.status === 202, `after ${name} is back submitting was answered ${made.status}`)
  await callers.end()
  // What was taken in without Redis is work for a while; what it waits for besides is not.
  stage.measure(`ms without an end after ${name}, at most`, await stage.settled(300_000, outage.accepts ? STILL_MS.redis : STILL_MS.database))
  stage.measure(`s to the last end after ${name}`, Math.round((performance.now() - from) / 1_000))
  stage.expect(await instance.kill('SIGTERM') === 0, `a process that saw ${name} go and come back did not stop in order`)
}

async function atStop(stage: Stage, outage: Outage): Promise<void> {
  const { name } = outage
  const instance = await stage.start(10)
  await post(`${instance.url}/api/v1/jobs`, { type: 'effect', input: { ms: 3_000 } })
  await stage.until('a job to run', () => stage.sink.heard('begun') > stage.sink.heard('naked'), 10_000)
  await outage.begin()
  try {
    const from = performance.now()
    const code = await instance.kill('SIGTERM')
    const took = Math.round(performance.now() - from)
    stage.measure(`ms to stop without ${name}`, took)
    stage.expect(took <= STOP_MS + 1_000, `the stop without ${name} took ${took} ms`)
    stage.expect(code === 0 || code === 1, `the stop without ${name} ended with ${code}`)
  } finally { await outage.end() }
}

const up = (instance: Instance) => instance.state !== 'ended'

async function atStart(stage: Stage, outage: Outage): Promise<void> {
  const { name } = outage
  await outage.begin()
  const instance = stage.begin(10)
  try {
    // No race with a pause of 20 s, which would hold up the end of the command.
    for (const until = performance.now() + 20_000; !instance.url && up(instance) && performance.now() < until;) await pause(50)
    await stage.until(`readiness to tell at the start that ${name} is away`, async () => !up(instance) || (instance.url !== '' && await told(instance.url, outage)), 20_000)
    stage.expect(up(instance), `without ${name} the process ended at its start: ${instance.lines.slice(-12).join('\n')}`)
    if (!up(instance)) return
    stage.measure(`at the start without ${name}`, 'told')
    await submits(stage, instance, outage)
  } finally { await outage.end() }
  await stage.until(`readiness once ${name} is there`, async () => (await ready(instance.url)).status === 200, 30_000)
  stage.expect(await instance.kill('SIGTERM') === 0, `a process that began without ${name} did not stop in order`)
}

export const outages: Show = {
  number: 3,
  title: 'Redis or PostgreSQL is absent or silent: at the start, for 30 s, and at the stop',
  on: engine => engine.queue === 'bullmq' || engine.database === 'postgres',
  async run(stage) {
    // The tables are there: what is missing at the start is the server.
    await (await stage.start(0)).kill('SIGTERM')
    for (const outage of outagesOf(stage)) {
      stage.say(`without ${outage.name} for a while`)
      await away(stage, outage)
      stage.say(`without ${outage.name} at the stop`)
      await atStop(stage, outage)
      stage.say(`without ${outage.name} at the start`)
      await atStart(stage, outage)
    }
    const last = await stage.start(10)
    await stage.settled(30_000)
    await last.kill('SIGTERM')
  },
}
