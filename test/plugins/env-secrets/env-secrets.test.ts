import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { z } from 'zod'
import { definePlugin, Secret, SecretResolve } from '#core'
import { contribute, createTestRuntime } from '#core/testing'
import { HealthCheck } from '#contracts/health'
import { normalizeSecretName, SecretsErrors, SecretStore } from '#contracts/secrets'
import { EnvironmentStore } from '../../../plugins/env-secrets/environment.ts'
import envSecrets from '../../../plugins/env-secrets/index.ts'

const read = async (env: Record<string, string>, name: string, prefix?: string) => (await new EnvironmentStore(env, prefix).read(name))?.value

describe('env-secrets', () => {
  let folder: string
  beforeEach(() => { folder = mkdtempSync(join(tmpdir(), 'backplane-env-')) })
  afterEach(() => rmSync(folder, { recursive: true }))
  const file = (content: string | Buffer) => {
    const path = join(folder, 'secret')
    writeFileSync(path, content)
    return path
  }

  it('finds one secret under all spellings of its name', async () => {
    for (const name of ['smtp-password', 'SMTP_PASSWORD', 'smtp_password', ' Smtp Password ']) assert.equal(await read({ SMTP_PASSWORD: 'x' }, name), 'x')
    assert.equal(await read({ SMTP_PASSWORD: 'x' }, 'smtp'), undefined)
  })

  it('finds every variable under its normalised name', async () => {
    const names = fc.stringMatching(/^[A-Za-z][A-Za-z0-9]{0,8}([_-][A-Za-z0-9]{1,8}){0,3}$/).filter(name => !/file$/i.test(name))
    await fc.assert(fc.asyncProperty(names, fc.string({ minLength: 1 }), async (name, value) => {
      assert.equal(await read({ [name]: value }, normalizeSecretName(name)), value)
    }))
  })

  it('prefers the spelling in capitals, whatever the order', async () => {
    assert.equal(await read({ api_key: 'small', API_KEY: 'capitals' }, 'api-key'), 'capitals')
    assert.equal(await read({ API_KEY: 'capitals', api_key: 'small' }, 'api-key'), 'capitals')
  })

  it('takes an empty variable for none', async () => {
    assert.equal(await read({ API_KEY: '', API_KEY_FILE: file('of the file') }, 'api-key'), 'of the file')
    assert.equal(await read({ API_KEY: '' }, 'api-key'), undefined)
  })

  it('reads the file that a variable names, without one line break at its end', async () => {
    for (const [content, value] of [['a\n', 'a'], ['a\r\n', 'a'], ['a\n\n', 'a\n'], [' a ', ' a '], ['ä€𝄞', 'ä€𝄞']] as const) {
      assert.equal(await read({ API_KEY_FILE: file(content) }, 'api-key'), value)
    }
    assert.equal(await read({ API_KEY: 'own', API_KEY_FILE: file('of the file') }, 'api-key'), 'own')
    assert.equal(await read({ API_KEY_FILE: file('\n') }, 'api-key'), undefined)
  })

  it('sees a file that was replaced', async () => {
    const store = new EnvironmentStore({ API_KEY_FILE: file('one') })
    assert.equal((await store.read('api-key'))?.value, 'one')
    file('two')
    assert.equal((await store.read('api-key'))?.value, 'two')
  })

  it('refuses a file that is missing, a folder, a device, a pipe, no text or too large, and never tells what is in it', async () => {
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    const cases: [path: string, reason: RegExp][] = [
      [join(folder, 'none'), /ENOENT/], [folder, /is no file/], ['/dev/zero', /is no file/], [pipe, /is no file/],
      [file(Buffer.from([0xff, 0x41])), /UTF-8/],
    ]
    for (const [path, reason] of cases) {
      await assert.rejects(read({ API_KEY_FILE: path }, 'api-key'), (error: Error) => SecretsErrors.UNAVAILABLE.is(error) && reason.test(error.message) && /API_KEY_FILE/.test(error.message))
    }
    await assert.rejects(read({ API_KEY_FILE: file('topsecret'.repeat(8_000)) }, 'api-key'), (error: Error) => /65536 bytes/.test(error.message) && !/topsecret/.test(error.message))
    assert.equal((await read({ API_KEY_FILE: file('x'.repeat(65_536)) }, 'api-key'))?.length, 65_536)
  })

  it('leaves out what does not begin with the prefix', async () => {
    const env = { APP_API_KEY: 'mine', OTHER: 'not' }
    assert.equal(await read(env, 'api-key', 'APP_'), 'mine')
    assert.equal(await read(env, 'other', 'APP_'), undefined)
  })

  it('can not be written, has no versions and lists nothing', async () => {
    const store = new EnvironmentStore({ A: 'b' })
    await assert.rejects(store.write(), { code: SecretsErrors.READ_ONLY.code })
    await assert.rejects(store.delete(), { code: SecretsErrors.READ_ONLY.code })
    assert.deepEqual([await store.list(), await store.versions(), await store.read('a', '1')], [[], [], undefined])
  })

  it('gives a plugin the secret that its settings name, and is a store for others', async () => {
    let seen: string | undefined
    const user = definePlugin({
      name: 'user', config: z.strictObject({ key: z.instanceof(Secret).meta({ type: 'string' }) }),
      async setup(ctx) { seen = await ctx.config.key.read() },
    })
    const key = new Secret([{ secret: 'api-key' }])
    await using t = await createTestRuntime({ plugins: [{ plugin: user, config: { key } }, envSecrets], host: { env: { API_KEY: 'of the environment' } } })
    assert.equal(seen, 'of the environment')
    assert.deepEqual(t.runtime.collect(SecretStore).map(({ name, priority }) => [name, priority]), [['env', 30]])
    assert.equal(await t.call(SecretResolve, { name: 'unknown', plugin: 'user' }), undefined)
  })

  it('lets better stores answer first', async () => {
    const better = definePlugin({ name: 'better', guards: [SecretResolve], setup(ctx) { ctx.hook(SecretResolve, ({ name }) => (name === 'both' ? 'better' : undefined)) } })
    await using t = await createTestRuntime({ plugins: [envSecrets, better], host: { env: { BOTH: 'env', ONE: 'env' } } })
    assert.deepEqual([await t.call(SecretResolve, { name: 'both', plugin: 'x' }), await t.call(SecretResolve, { name: 'one', plugin: 'x' })], ['better', 'env'])
  })

  it('is degraded while a file that was asked for can not be read', async () => {
    const path = file('x')
    rmSync(path)
    await using t = await createTestRuntime({ plugins: [envSecrets, contribute(HealthCheck)], host: { env: { API_KEY_FILE: path } } })
    const status = async () => (await t.runtime.collect(HealthCheck)[0]!.check(AbortSignal.timeout(1_000))).status
    assert.equal(await status(), 'healthy')
    await assert.rejects(async () => t.call(SecretResolve, { name: 'api-key', plugin: 'x' }))
    assert.equal(await status(), 'degraded')
    file('back')
    await t.call(SecretResolve, { name: 'api-key', plugin: 'x' })
    assert.equal(await status(), 'healthy')
  })
})
