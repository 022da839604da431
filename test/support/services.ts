/** A real server that tests talk to, started once for a whole run. */
export interface TestService {
  readonly name: string
  /** Starts it on a free port in a folder of its own, and says in the environment where it is. */
  start(): Promise<void>
  stop(): Promise<void>
}

/** In order of start. */
const services: readonly TestService[] = []

export async function startServices(): Promise<void> { for (const service of services) await service.start() }

export async function stopServices(): Promise<void> {
  const stopped = await Promise.allSettled(services.toReversed().map(service => service.stop()))
  const failed = stopped.flatMap(each => (each.status === 'rejected' ? [each.reason] : []))
  if (failed.length) throw new AggregateError(failed, 'test services did not stop')
}
