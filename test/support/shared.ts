import { spawnSync } from 'node:child_process'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'

/** The bus of a Redis cluster, a Sentinel and what others are told beforehand need to know a port before they listen. */
export const freePort = () => new Promise<number>((resolve, reject) => {
  const server = createServer().once('error', reject).listen(0, '127.0.0.1', () => {
    const { port } = server.address() as AddressInfo
    server.close(() => resolve(port))
  })
})

/** By apt, where this is root's machine and has it. */
export function install(name: string, pack: string, Missing: new (message: string) => Error): void {
  if (process.getuid?.() !== 0 || spawnSync('apt-get', ['--version']).status !== 0) return
  const apt = (...args: string[]) => spawnSync('apt-get', args, { encoding: 'utf8', env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, timeout: 300_000 })
  // Debian's package would begin a service of its own.
  const policy = '/usr/sbin/policy-rc.d'
  const ours = !existsSync(policy)
  if (ours) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  const packages = ['install', '-y', '-q', '--no-install-recommends', pack]
  try {
    console.log(`installing ${name} for the tests …`)
    if (apt(...packages).status === 0) return
    apt('update', '-q')
    const { status, stderr, error } = apt(...packages)
    if (status !== 0) throw new Missing(`${name} could not be installed: ${(error?.message ?? stderr ?? '').trim().split('\n').at(-1)}`)
  } finally { if (ours) rmSync(policy, { force: true }) }
}

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
