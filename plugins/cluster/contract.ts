import { defineErrors, defineService, type Clock, type Live, type Role } from '#core'

export interface Instance {
  readonly id: string
  readonly roles: readonly Role[]
  readonly version: string
  readonly hostname: string
  readonly pid: number
  readonly started_at: number
  /** It is taken for gone when this is older than three heartbeats. */
  readonly seen_at: number
}
/** The processes of this deployment that are alive. */
export interface Instances { list(): Promise<readonly Instance[]> }
export const Instances = defineService<Instances>('cluster.instances')

/** Held until it is released, lost or expired. */
export interface Lease extends AsyncDisposable {
  readonly name: string
  /** Grows with each holder. Write it beside what the lease protects, and refuse a smaller one: a paused holder does not know that it lost. */
  readonly token: number
  /** Aborts when the lease is lost. */
  readonly signal: AbortSignal
}
/** At most one holder of a name over all instances; another takes over within 10 s. */
export interface Leases {
  /** Resolves to nothing if somebody has it. */
  acquire(name: string): Promise<Lease | undefined>
  /** Runs `work` whenever this instance holds the lease, until disposed. A leader is elected nowhere else. */
  lead(name: string, work: (lease: Lease) => Promise<void>): Promise<AsyncDisposable>
}
export const Leases = defineService<Leases>('cluster.leases')

/** Says something to all instances, this one included: at most once, soon, small. For wake-ups; what must not be missed is an event. */
export interface Broadcast {
  /** `message` is plain data of at most 4 KiB. */
  publish(channel: string, message: unknown): Promise<void>
  subscribe(channel: string, handle: (message: unknown) => void): Promise<AsyncDisposable>
}
export const Broadcast = defineService<Broadcast>('cluster.broadcast')

/** How far the clock of this machine is from the one that all processes share, the database's. */
export interface ClockSkew {
  /** Milliseconds to add to the time of this machine where others compare it with theirs; 0 while that is less than 100, or not known yet. */
  readonly ms: number
}
export const ClockSkew = defineService<ClockSkew>('cluster.clock-skew')
/** The time that all processes share. By its own a machine whose clock is fast would take jobs from workers that live, and fire schedules early. */
export const sharedClock = (clock: Clock, skew: Live<ClockSkew>): Clock => ({
  now: () => clock.now() + (skew.current?.ms ?? 0),
  deadlines: clock.deadlines, after: (ms, run) => clock.after(ms, run), every: (ms, run) => clock.every(ms, run),
})

export const ClusterErrors = defineErrors('CLUSTER', {
  LEASE_LOST: { message: 'this instance does not hold the lease "{name}" any more', fix: 'Nothing to do: its new holder goes on.', retryable: true },
  TOO_LARGE: { message: 'a broadcast message of {bytes} bytes is more than {limit}', fix: 'Store it and broadcast its id.' },
})
