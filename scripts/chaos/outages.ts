import type { Instance } from './instance.ts'
import { ask, post } from './load.ts'
import { pause } from './random.ts'
import type { Show } from './show.ts'
import type { Stage } from './stage.ts'

const ANSWER_MS = 2_000
const STOP_MS = 30_000

const request = { type: 'effect', input: { ms: 0 } }
const ready = async (url: string) => await ask(`${url}/health/ready`)

interface Service { readonly name: string; readonly says: RegExp; readonly accepts: boolean; crash(): Promise<void>; restart(): Promise<void> }

function servicesOf({ redis, postgres }: Stage): Service[] {
  return [
    ...(redis ? [{ name: 'Redis', says: /redis/, accepts: true, crash: () => redis.crash(), restart: () => redis.restart() }] : []),
    ...(postgres ? [{ name: 'PostgreSQL', says: /database/, accepts: false, crash: () => postgres.crash(), restart: () => postgres.restart() }] : []),
  ]
}

/** It answers within its time what it must while the service is away. */
async function submits(stage: Stage, { url, lines }: Instance, { name, accepts }: Service): Promise<void> {
  const answers = await Promise.all(Array.from({ length: 5 }, () => post(`${url}/api/v1/jobs`, request)))
  const slowest = Math.round(Math.max(...answers.map(each => each.ms)))
  stage.measure(`ms to answer without ${name}`, slowest)
  const wanted = accepts ? 202 : 503
  const others = answers.filter(each => each.status !== wanted)
  stage.expect(others.length === 0, `without ${name} submitting was answered ${others[0]?.status}, not ${wanted}: ${JSON.stringify(others[0]?.body)}\n${lines.filter(line => line.includes('"error"')).at(-1)}`)
  stage.expect(slowest <= ANSWER_MS, `without ${name} an answer took ${slowest} ms`)
}

async function away(stage: Stage, service: Service, ms: number): Promise<void> {
  const { name, says } = service
  const instance = await stage.start(10)
  await service.crash()
  await stage.until(`readiness to tell that ${name} is away`, async () => {
    const { status, body } = await ready(instance.url)
    return status === 503 && says.test(JSON.stringify(body))
  }, 10_000)
  await submits(stage, instance, service)
  await pause(ms)
  stage.expect(instance.up, `the process ended while ${name} was away: ${instance.lines.slice(-5).join('\n')}`)
  await service.restart()
  const from = performance.now()
  await stage.until(`readiness after ${name} is back`, async () => (await ready(instance.url)).status === 200, 20_000)
  stage.measure(`ms to ready after ${name}`, Math.round(performance.now() - from))
  const made = await post(`${instance.url}/api/v1/jobs`, request)
  stage.expect(made.status === 202, `after ${name} is back submitting was answered ${made.status}`)
  await stage.settled(30_000)
  stage.expect(await instance.kill('SIGTERM') === 0, `a process that saw ${name} go and come back did not stop in order`)
}

async function atStop(stage: Stage, service: Service): Promise<void> {
  const instance = await stage.start(10)
  await post(`${instance.url}/api/v1/jobs`, { type: 'effect', input: { ms: 3_000 } })
  await stage.until('a job to run', () => stage.sink.heard('begun') > stage.sink.heard('naked'), 10_000)
  await service.crash()
  const from = performance.now()
  const code = await instance.kill('SIGTERM')
  const took = Math.round(performance.now() - from)
  stage.measure(`ms to stop without ${service.name}`, took)
  stage.expect(took <= STOP_MS + 1_000, `the stop without ${service.name} took ${took} ms`)
  stage.expect(code === 0 || code === 1, `the stop without ${service.name} ended with ${code}`)
  await service.restart()
}

const up = (instance: Instance) => instance.state !== 'ended'

async function atStart(stage: Stage, service: Service): Promise<void> {
  const { name, says } = service
  await service.crash()
  const instance = stage.begin(10)
  // No race with a pause of 20 s, which would hold up the end of the command.
  for (const until = performance.now() + 20_000; !instance.url && up(instance) && performance.now() < until;) await pause(50)
  await pause(500)
  const alive = up(instance)
  stage.expect(alive, `without ${name} the process ended at its start: ${instance.lines.slice(-12).join('\n')}`)
  if (alive && instance.url) {
    const { status, body } = await ready(instance.url)
    stage.expect(status === 503, `readiness without ${name} at the start was ${status} ${JSON.stringify(body)}`)
    stage.measure(`at the start without ${name}`, says.test(JSON.stringify(body)) ? 'told' : JSON.stringify(body?.reasons ?? body))
    await submits(stage, instance, service)
  } else if (alive) stage.expect(false, `without ${name} at the start nothing listens after 20 s`)
  await service.restart()
  if (!alive) return
  await stage.until(`readiness once ${name} is there`, async () => instance.url !== '' && (await ready(instance.url)).status === 200, 30_000)
  stage.expect(await instance.kill('SIGTERM') === 0, `a process that began without ${name} did not stop in order`)
}

export const outages: Show = {
  number: 3,
  title: 'Redis or PostgreSQL is absent at the start, for 30 s, and at the stop',
  on: engine => engine.queue === 'bullmq' || engine.database === 'postgres',
  async run(stage) {
    // The tables are there: what is missing at the start is the server.
    await (await stage.start(0)).kill('SIGTERM')
    for (const service of servicesOf(stage)) {
      stage.say(`${service.name} goes away for a while`)
      await away(stage, service, stage.many(30_000))
      stage.say(`${service.name} is away at the stop`)
      await atStop(stage, service)
      stage.say(`${service.name} is absent at the start`)
      await atStart(stage, service)
    }
    const last = await stage.start(10)
    await stage.settled(30_000)
    await last.kill('SIGTERM')
  },
}
