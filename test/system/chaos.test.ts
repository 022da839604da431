import assert from 'node:assert/strict'
import { snapshot } from '../../scripts/chaos/host.ts'
import { text } from '../../scripts/chaos/report.ts'
import { ENGINES, type Engine, type Result } from '../../scripts/chaos/show.ts'
import { isOn, perform, SHOWS } from '../../scripts/chaos/shows.ts'
import { redisOrSkip } from '../support/services.ts'

const SEED = Number(process.env['BACKPLANE_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const SCALE = 0.005
/** What is quick, and shown by no other test; `npm run chaos -- --all` runs all of them. */
const CHOSEN: Readonly<Record<string, readonly number[]>> = { 'embedded-sqlite': [1, 7], 'bullmq-sqlite': [2, 8] }

const said: string[] = []
async function play(number: number, engine: Engine, host: string): Promise<Result> {
  const show = SHOWS.find(each => each.number === number)!
  const result = await perform(show, { engine, host, seed: SEED, scale: SCALE, say: line => said.push(`show ${number}: ${line}`) })
  assert.deepEqual(result.violations, [], said.join('\n'))
  return result
}

describe(`the shows of reliability, in small (BACKPLANE_SEED=${SEED})`, function () {
  this.timeout(180_000)
  let host: Awaited<ReturnType<typeof snapshot>>
  before(async () => { host = await snapshot() })
  after(() => host.remove())

  for (const [name, numbers] of Object.entries(CHOSEN)) {
    const engine = ENGINES.find(each => each.name === name)!
    for (const number of numbers) {
      it(`on ${name}: ${SHOWS.find(each => each.number === number)!.title}`, async function () {
        if (engine.queue === 'bullmq') await redisOrSkip(this)
        const result = await play(number, engine, host.folder)
        assert.ok(Object.keys(result.numbers).length > 0)
        assert.match(text([result]), /kept/)
      })
    }
  }

  it('are there for every engine that has something to show', () => {
    assert.deepEqual(SHOWS.map(each => each.number), [1, 2, 3, 4, 5, 6, 7, 8, 10])
    for (const engine of ENGINES) assert.ok(SHOWS.filter(show => isOn(show, engine)).length >= 7, engine.name)
  })
})
