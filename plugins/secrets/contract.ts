import { defineErrors, definePoint, defineService, SecretResolve, SecretRotated } from '#core'
import type { Caller } from '#contracts/access'

// The core owns these two, since config references need them before any plugin is there.
export { SecretResolve, SecretRotated }

/** A value with where it came from. */
export interface SecretValue { readonly value: string; readonly version?: string; readonly store: string; readonly updated_at?: number }

/** One place where secrets are kept. Names are in kebab case; the store maps them to its own. */
export interface SecretStore {
  readonly name: string
  /** The lowest is asked first. Vault 10, encrypted database 20, environment 30. */
  readonly priority: number
  readonly can: { readonly write: boolean; readonly versions: boolean; readonly list: boolean }
  /** Missing settings make it `unconfigured`: it is passed over without an error. */
  status(): Promise<'ready' | 'unconfigured' | 'unreachable' | 'sealed' | 'denied'>
  read(name: string, version?: string): Promise<SecretValue | undefined>
  /** Rejects with SECRETS_READ_ONLY where it can't. Resolves to the new version, if it keeps them. */
  write(name: string, value: string): Promise<string | undefined>
  delete(name: string): Promise<boolean>
  list(): Promise<readonly string[]>
  versions(name: string): Promise<readonly string[]>
}
export const SecretStore = definePoint<SecretStore>('secrets.store', { key: store => store.name })

export interface SecretInfo { readonly name: string; readonly store: string; readonly version?: string; readonly age_seconds?: number }

/** The chain over all stores: who may read what, in which order, with one fetch at a time and a short memory. */
export interface Secrets {
  read(caller: Caller, name: string): Promise<SecretValue>
  write(caller: Caller, name: string, value: string, store?: string): Promise<SecretInfo>
  /** Writes a new version, and tells those who watch. */
  rotate(caller: Caller, name: string, value: string): Promise<SecretInfo>
  delete(caller: Caller, name: string): Promise<void>
  list(caller: Caller): Promise<readonly SecretInfo[]>
}
export const Secrets = defineService<Secrets>('secrets.secrets')

/** One name for `anthropic-api-key`, `ANTHROPIC_API_KEY` and `anthropic_api_key`. */
export const normalizeSecretName = (name: string): string => name.trim().toLowerCase().replaceAll(/[\s_]+/g, '-')

export const SecretsErrors = defineErrors('SECRETS', {
  NOT_FOUND: { message: 'secret "{name}" was not found in {stores}', fix: 'Set it: `backplane secrets set {name}`.', status: 404, expose: true },
  READ_ONLY: { message: 'secret store "{store}" can\'t be written', fix: 'Write to another store with --store, or set the variable where the process is started.', status: 409, expose: true },
  UNAVAILABLE: { message: 'secret store "{store}" does not answer: {reason}', fix: 'See `backplane health secrets`.', status: 503, retryable: true },
})
