import { BackplaneError, defineErrors, definePoint, defineService, rootOf, type Clock, type Live } from '#core'

/** `area:action`, such as `jobs:submit`. A role may hold globs: `jobs:*`. */
export type Permission = `${string}:${string}`

/**
 * Authority, and the first argument of every service method that acts for somebody. Only `Access` makes one;
 * it is handed on explicitly and never looked up from the surroundings.
 */
export interface Caller {
  /** Of the user, service account or key; stored as `created_by` and `principal_id`. */
  readonly id: string
  readonly kind: 'operator' | 'user' | 'service' | 'job' | 'system'
  readonly name: string
  /** The project that new things belong to when a request names none. */
  readonly project_id: string
}

/** What is known of a request before its body is read. */
export interface Credentials {
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
  /** Address of the peer, or of the client that a trusted proxy names. */
  readonly address: string
  readonly method: string
  readonly path: string
  /** A token that came in a query string, where a transport allows that. Never logged. */
  readonly token?: string
}

/** One thing that a permission is asked for: `{ kind: 'job', id, project_id }`. */
export interface Resource { readonly kind: string; readonly id: string; readonly project_id?: string }

/** Who may do what. `access-open` provides it for a lone operator on loopback, `rbac` for everybody else. */
export interface Access {
  /** Rejects with ACCESS_UNAUTHENTICATED or ACCESS_FORBIDDEN. */
  identify(credentials: Credentials): Promise<Caller>
  /** Rejects with ACCESS_FORBIDDEN, which names the permission. Without a resource it asks for the area alone. */
  check(caller: Caller, permission: Permission, resource?: Resource): Promise<void>
  /** For lists: the project ids that the caller may see with this permission, or `all`. */
  projects(caller: Caller, permission: Permission): Promise<readonly string[] | 'all'>
  /** The caller of work that was stored, as it stands today: a worker asks again before it runs somebody's job. */
  restore(principalId: string, projectId: string): Promise<Caller>
  /** May a server listen there? Rejects with ACCESS_BIND_REFUSED. */
  admitBind(host: string): Promise<void>
}
export const Access = defineService<Access>('access.access')

/** A permission that a plugin asks for, so that roles can be checked and listed. */
export interface PermissionInfo { readonly name: Permission; readonly summary: string }
export const PermissionInfo = definePoint<PermissionInfo>('access.permission', { key: permission => permission.name })

export const AccessErrors = defineErrors('ACCESS', {
  UNAVAILABLE: { message: 'no access plugin is running, so nobody can be let in', fix: 'Add `access-open: {}` (loopback only) or `rbac: {}` to plugins in the config.', status: 503, expose: true },
  UNAUTHENTICATED: { message: '{reason}', fix: 'Send `Authorization: Bearer <key>`.', status: 401, expose: true },
  FORBIDDEN: { message: 'this needs the permission "{permission}": {reason}', fix: 'Ask an administrator for a role that has it.', status: 403, expose: true },
  HOST_REFUSED: { message: 'requests for the host "{host}" are refused', fix: 'Call the server by a loopback name (localhost, 127.0.0.1, [::1]), or load a plugin that identifies callers.', status: 403, expose: true },
  ORIGIN_REFUSED: {
    message: 'requests from the origin "{origin}" are refused', status: 403, expose: true,
    fix: 'Call from a page that this server serves, name a dev server of this machine in plugins.access-open.config.origins, or load a plugin that identifies callers.',
  },
  PEER_REFUSED: { message: 'requests from {peer} are refused', fix: 'Call from the same machine, without a proxy, or load a plugin that identifies callers.', status: 403, expose: true },
  BIND_REFUSED: { message: 'listening on "{host}" is refused: {reason}', fix: 'Listen on 127.0.0.1, or load a plugin that identifies callers.' },
})

const REFUSALS: ReadonlySet<number> = new Set([401, 403, 404])

export interface Recheck {
  /** May this caller still? As it stands now: the key may be revoked by then, and its roles may be others. */
  readonly check: (caller: Caller) => Promise<void>
  readonly clock: Clock
  readonly everyMs: number
  /** Ends it. */
  readonly signal: AbortSignal
}

/** For what takes long, as an open stream: asks again and again whether the caller still may, and calls back once he may not. That nobody can say so now is no refusal. */
export function onRefusal(access: Live<Access>, caller: Caller, { check, clock, everyMs, signal }: Recheck, refused: (why: BackplaneError) => void): void {
  let asking = false
  const cancel = clock.every(everyMs, async () => {
    if (asking) return
    asking = true
    try {
      if (!access.current) throw AccessErrors.UNAVAILABLE()
      await check(await access.current.restore(caller.id, caller.project_id))
    } catch (error) {
      const root = rootOf(error)
      if (signal.aborted || !(root instanceof BackplaneError && root.expose && REFUSALS.has(root.status))) return
      cancel()
      refused(root)
    } finally { asking = false }
  })
  signal.addEventListener('abort', cancel, { once: true })
  if (signal.aborted) cancel()
}
