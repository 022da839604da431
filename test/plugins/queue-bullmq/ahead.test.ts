import assert from 'node:assert/strict'
import { FakeClock } from '#core/testing'
import { Ahead } from '../../../plugins/queue-bullmq/ahead.ts'

/** A queue with so many ids. */
function stage(count: number) {
  const waiting = Array.from({ length: count }, (_, at) => `j${at}`)
  const put: string[][] = []
  const asked: number[] = []
  const clock = new FakeClock()
  const source = {
    take: async (room: number) => { asked.push(room); return waiting.splice(0, room) },
    putBack: async (ids: readonly string[]) => { put.push([...ids]); waiting.unshift(...ids) },
  }
  return { put, asked, clock, waiting, ahead: new Ahead(source, clock, 100) }
}
const turn = () => new Promise(resolve => setImmediate(resolve))

describe('queue-bullmq: ids taken ahead', () => {
  it('are there for whoever wants more at once, twice as many as were wanted', async () => {
    const { ahead, asked } = stage(20)
    assert.deepEqual([await ahead.take(3), ahead.atHand(3)], [['j0', 'j1', 'j2'], []])
    assert.deepEqual(await ahead.take(3), ['j3', 'j4', 'j5'])
    await turn()
    assert.deepEqual(asked, [3, 3, 6])
    assert.deepEqual([ahead.atHand(3), ahead.atHand(2)], [['j6', 'j7', 'j8'], ['j9', 'j10']])
    await ahead.close()
  })

  it('are none where places come free slowly', async () => {
    const { ahead, asked, clock } = stage(20)
    for (let times = 0; times < 4; times++) {
      assert.equal((await ahead.take(3)).length, 3)
      await clock.advance(30)
    }
    assert.deepEqual([asked, ahead.atHand(3)], [[3, 3, 3, 3], []])
  })

  it('are none where the queue has no more', async () => {
    const { ahead, asked } = stage(5)
    for (let times = 0; times < 3; times++) await ahead.take(3)
    assert.deepEqual(asked, [3, 3, 3])
  })

  it('go back if nobody wants them soon, and when it is closed', async () => {
    const { ahead, put, clock, waiting } = stage(20)
    for (let times = 0; times < 2; times++) await ahead.take(2)
    await turn()
    assert.equal(waiting.length, 12)
    await clock.advance(30)
    assert.deepEqual([put, waiting.length, ahead.atHand(2)], [[['j4', 'j5', 'j6', 'j7']], 16, []])
    for (let times = 0; times < 2; times++) await ahead.take(2)
    await ahead.close()
    assert.deepEqual([put.length, waiting.length], [2, 12])
  })
})
