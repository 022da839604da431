import assert from 'node:assert/strict'
import { defineConformance, eventually } from '#core/testing'
import { ClusterErrors, Leases, type Broadcast, type Instances, type Lease } from '#contracts/cluster'

/** One process, or what stands for it. */
export interface ClusterNode {
  readonly id: string
  readonly instances: Instances
  readonly leases: Leases
  readonly broadcast: Broadcast
  /** It reaches nobody any more, and goes on running. */
  cut(): Promise<void>
  /** It stops as it should. */
  leave(): Promise<void>
}
export interface ClusterSubject {
  /** Two that know of each other. */
  readonly nodes: readonly [ClusterNode, ClusterNode]
  /** How long a lease outlives its holder. Milliseconds, at most 2,000. */
  readonly leaseMs: number
}

const ids = async (node: ClusterNode) => (await node.instances.list()).map(each => each.id).sort()
const aborted = (signal: AbortSignal) => new Promise<void>(resolve => {
  if (signal.aborted) resolve()
  else signal.addEventListener('abort', () => resolve(), { once: true })
})
const both = ({ nodes: [one, two] }: ClusterSubject) => [one.id, two.id].sort()

/** Who acts, and how many at once at most. */
function stage() {
  const acting = new Set<string>()
  const log: { readonly who: string; readonly token: number }[] = []
  const state = { most: 0 }
  const work = (who: string) => async (lease: Lease) => {
    acting.add(who)
    state.most = Math.max(state.most, acting.size)
    log.push({ who, token: lease.token })
    await aborted(lease.signal)
    acting.delete(who)
  }
  return { acting, log, state, work }
}

/** What every cluster promises, whatever carries it. */
export const clusterConformance = defineConformance<ClusterSubject>(Leases, {
  'lists all processes, to all of them': {
    async run(subject) {
      for (const node of subject.nodes) await eventually('both to be listed', async () => String(await ids(node)) === String(both(subject)))
      const [mine] = (await subject.nodes[1].instances.list()).filter(each => each.id === subject.nodes[0].id)
      assert.ok(mine!.roles.length && mine!.version && mine!.hostname && mine!.pid > 0 && mine!.seen_at >= mine!.started_at)
    },
  },
  'lists no one who left': {
    async run({ nodes: [one, two] }) {
      await eventually('both to be listed', async () => (await ids(one)).length === 2)
      await two.leave()
      assert.deepEqual(await ids(one), [one.id])
    },
  },
  'lists no one who is silent': {
    async run({ nodes: [one, two] }) {
      await eventually('both to be listed', async () => (await ids(one)).length === 2)
      await two.cut()
      await eventually('the silent one to be gone', async () => String(await ids(one)) === one.id)
    },
  },
  'gives a lease to one of many who ask at once': {
    async run({ nodes }) {
      const asked = await Promise.all(Array.from({ length: 20 }, (_, at) => nodes[at % 2]!.leases.acquire('a')))
      const [lease, ...more] = asked.filter(each => each !== undefined)
      assert.equal(more.length, 0)
      assert.ok(lease && !lease.signal.aborted && lease.name === 'a')
      await lease[Symbol.asyncDispose]()
    },
  },
  'keeps leases of different names apart': {
    async run({ nodes: [one, two] }) {
      await using a = await one.leases.acquire('a')
      await using b = await two.leases.acquire('b')
      assert.ok(a && b)
    },
  },
  'keeps a lease as long as its holder lives, and gives it to nobody else': {
    async run({ nodes: [one, two], leaseMs }) {
      const lease = (await one.leases.acquire('a'))!
      for (const until = performance.now() + leaseMs * 2; performance.now() < until;) {
        assert.equal(await two.leases.acquire('a'), undefined)
        await new Promise(resolve => setTimeout(resolve, leaseMs / 20))
      }
      assert.equal(lease.signal.aborted, false)
      await lease[Symbol.asyncDispose]()
    },
  },
  'gives a lease that was given back to the next at once, with a larger token, and ends the signal': {
    async run({ nodes: [one, two] }) {
      let last = 0
      for (const node of [one, two, two, one]) {
        const lease = (await node.leases.acquire('a'))!
        assert.ok(lease.token > last, `${lease.token} after ${last}`)
        last = lease.token
        await lease[Symbol.asyncDispose]()
        await lease[Symbol.asyncDispose]()
        assert.equal(lease.signal.aborted, true)
      }
    },
  },
  'tells a holder who reaches nobody that it lost, before another one can have it': {
    async run({ nodes: [one, two], leaseMs }) {
      const lease = (await one.leases.acquire('a'))!
      let lostAt = Infinity
      void aborted(lease.signal).then(() => { lostAt = performance.now() })
      await one.cut()
      const next = await eventually('the other one to get it', () => two.leases.acquire('a'), leaseMs * 4)
      assert.ok(lostAt < performance.now(), 'two held it at once')
      assert.ok(ClusterErrors.LEASE_LOST.is(lease.signal.reason))
      assert.ok(next.token > lease.token)
      await next[Symbol.asyncDispose]()
    },
  },
  'leads on one, and on the other when the first one leaves': {
    async run({ nodes: [one, two] }) {
      const { acting, log, state, work } = stage()
      const first = await one.leases.lead('a', work('one'))
      await eventually('one to lead', () => acting.has('one'))
      await using _second = await two.leases.lead('a', work('two'))
      await first[Symbol.asyncDispose]()
      assert.equal(acting.has('one'), false, 'disposing waits for the work')
      await eventually('two to lead', () => acting.has('two'))
      assert.equal(state.most, 1)
      assert.ok(log[1]!.token > log[0]!.token)
    },
  },
  'leads on the other when the first one reaches nobody': {
    async run({ nodes: [one, two], leaseMs }) {
      const { acting, state, work } = stage()
      await using _first = await one.leases.lead('a', work('one'))
      await eventually('one to lead', () => acting.has('one'))
      await using _second = await two.leases.lead('a', work('two'))
      await one.cut()
      await eventually('two to lead', () => acting.has('two'), leaseMs * 4)
      assert.equal(state.most, 1)
    },
  },
  'begins work again that failed or came to its end': {
    async run({ nodes: [one] }) {
      let runs = 0
      await using _led = await one.leases.lead('a', async ({ signal }) => {
        runs++
        if (runs === 1) throw new Error('the first time')
        if (runs > 2) await aborted(signal)
      })
      await eventually('the third run', () => runs === 3)
    },
  },
  'keeps the lease until work that was told to end has ended': {
    async run({ nodes: [one, two] }) {
      let finish!: () => void
      const finished = new Promise<void>(resolve => { finish = resolve })
      let [begun, told] = [false, false]
      const led = await one.leases.lead('a', async ({ signal }) => { begun = true; await aborted(signal); told = true; await finished })
      await eventually('one to lead', () => begun)
      assert.equal(await two.leases.acquire('a'), undefined)
      const disposed = led[Symbol.asyncDispose]()
      await eventually('the work to be told', () => told)
      assert.equal(await two.leases.acquire('a'), undefined)
      finish()
      await disposed
      const next = await two.leases.acquire('a')
      assert.ok(next)
      await next[Symbol.asyncDispose]()
    },
  },
  'tells all processes, itself too, once and in order, and only on that channel': {
    async run({ nodes: [one, two] }) {
      await eventually('both to be listed', async () => (await ids(one)).length === 2)
      const heard: unknown[][] = [[], []]
      const others: unknown[] = []
      await using _a = await one.broadcast.subscribe('news', message => heard[0]!.push(message))
      await using _b = await two.broadcast.subscribe('news', message => heard[1]!.push(message))
      await using _c = await two.broadcast.subscribe('other', message => others.push(message))
      const sent = [{ n: 1 }, 'zwei\nLinien', 3, null, ['ä€𝄞']]
      for (const message of sent) await one.broadcast.publish('news', message)
      assert.deepEqual(heard[0], sent)
      await eventually('the other one to hear', () => heard[1]!.length >= sent.length)
      assert.deepEqual(heard[1], sent)
      assert.deepEqual(others, [])
    },
  },
  'hears nothing more after it has left a channel, and a handler that throws disturbs nobody': {
    async run({ nodes: [one, two] }) {
      await eventually('both to be listed', async () => (await ids(one)).length === 2)
      const heard: unknown[] = []
      const left = await two.broadcast.subscribe('news', () => assert.fail('it has left'))
      await using _bad = await two.broadcast.subscribe('news', () => { throw new Error('no') })
      await using _good = await two.broadcast.subscribe('news', message => heard.push(message))
      await left[Symbol.asyncDispose]()
      await one.broadcast.publish('news', 1)
      await two.broadcast.publish('news', 2)
      await eventually('both messages', () => heard.length === 2)
    },
  },
  'refuses a message over 4 KiB, and carries one of 4 KiB': {
    async run({ nodes: [one, two] }) {
      await eventually('both to be listed', async () => (await ids(one)).length === 2)
      const heard: unknown[] = []
      await using _sub = await two.broadcast.subscribe('news', message => heard.push(message))
      await assert.rejects(one.broadcast.publish('news', 'x'.repeat(4_095)), { code: ClusterErrors.TOO_LARGE.code })
      await assert.rejects(one.broadcast.publish('news', 'ä'.repeat(2_048)), { code: ClusterErrors.TOO_LARGE.code })
      await one.broadcast.publish('news', 'ä'.repeat(2_047))
      await eventually('the large one', () => heard.length === 1)
      assert.deepEqual(heard, ['ä'.repeat(2_047)])
    },
  },
})
