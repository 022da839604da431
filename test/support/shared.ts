/** A real server of this run of tests: whoever asks first starts it, and the end of the run stops it. */
export interface SharedServer<S> {
  /** Rejects with `Missing` where there is none. */
  get(): Promise<S>
  /** For `before`: the server (or one of your own), or the suite is skipped with the reason. */
  orSkip(context: Mocha.Context, start?: () => Promise<S>): Promise<S>
  /** Does nothing if nobody asked for it. */
  stop(): Promise<void>
}

export function sharedServer<S extends { stop(): Promise<void> }>(begin: () => Promise<S>, Missing: new (...args: any[]) => Error): SharedServer<S> {
  let shared: Promise<S> | undefined
  const get = () => (shared ??= begin())
  return {
    get,
    async orSkip(context, start = get) {
      context.timeout(360_000)
      try { return await start() } catch (error) {
        if (!(error instanceof Missing)) throw error
        console.log(`skipped: ${error.message}`)
        return context.skip()
      }
    },
    async stop() {
      const server = await shared?.catch(() => undefined)
      shared = undefined
      await server?.stop()
    },
  }
}
