import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import * as fc from 'fast-check'
import { Secret } from '#core'
import { ConfigErrors, scalarOf, variables } from '../../../core/config/config.ts'
import { loadDeployment, LoaderErrors, type Deployment } from '../../../core/host/loader.ts'
import { conceal } from '../../../core/config/conceal.ts'
import { nearest } from '../../../core/schema/nearest.ts'
import { holdsPassword, parseReferences, soundsSecret } from '../../../core/config/reference.ts'
import { find, leaves, merge, parseYaml, valueOf, type Tree } from '../../../core/config/tree.ts'

const PLUGIN = `
  import { definePlugin, Secret } from 'backplane'
  import { z } from 'zod'
  export default definePlugin({ name: 'p', setup() {}, config: z.strictObject({
    port: z.int().optional(), host: z.string().optional(), on: z.boolean().optional(), tags: z.array(z.string()).optional(), anything: z.unknown().optional(),
    password: z.instanceof(Secret).meta({ type: 'string' }).optional(), limits: z.record(z.string(), z.number()).optional(),
    'max-idle': z.strictObject({ perHost: z.number().default(4) }).prefault({}),
  }) })`
const folders: string[] = []

function folder(files: Readonly<Record<string, string>>): string {
  const cwd = mkdtempSync(join(tmpdir(), 'config-'))
  folders.push(cwd)
  for (const [name, text] of Object.entries({ 'config/p.mjs': PLUGIN, ...files })) {
    mkdirSync(dirname(join(cwd, name)), { recursive: true })
    writeFileSync(join(cwd, name), text)
  }
  return cwd
}
const p = (config: string) => `plugins:\n  p:\n    use: ./p.mjs\n    config: ${config}\n`
async function load(files: Readonly<Record<string, string>>, env: Readonly<Record<string, string>> = {}, configFile?: string): Promise<Deployment> {
  const found = await loadDeployment({ cwd: folder(files), env, ...(configFile && { configFile }) })
  assert.deepEqual(found.problems.map(({ message }) => message), [])
  return found
}
const configOf = (found: Deployment) => found.entries[0]!.config as Record<string, any>
const clean = () => { for (const each of folders.splice(0)) rmSync(each, { recursive: true, force: true }) }

describe('the layers of a configuration', () => {
  after(clean)

  it('are default, environment, --config and variables, and each value knows where it stands', async () => {
    const found = await load({
      'config/default.yaml': 'log:\n  level: debug\nruntime: { graceMs: 1000 }\nplugins:\n  p:\n    use: ./p.mjs\n    config:\n      port: 1\n      host: a\n      tags: [a, b]\n      on: true\n',
      'config/production.yaml': 'plugins:\n  p:\n    config:\n      host: b\n      tags: [c]\n      on:\n', 'mine.yaml': 'plugins: { p: { config: { port: 3 } } }\n',
    }, { NODE_ENV: 'production', LOG_LEVEL: 'warn' }, 'mine.yaml')
    assert.deepEqual(configOf(found), { port: 3, host: 'b', tags: ['c'] })
    assert.deepEqual([found.environment, found.settings.log.level, found.settings.graceMs], ['production', 'warn', 1000])
    assert.deepEqual(found.originOf(['plugins', 'p', 'config', 'port']), { file: 'mine.yaml', line: 1, column: 33 })
    assert.deepEqual(found.originOf(['plugins', 'p', 'config', 'host']), { file: 'config/production.yaml', line: 4, column: 13 })
    assert.deepEqual(found.originOf(['plugins', 'p', 'config', 'tags']), { file: 'config/production.yaml', line: 5, column: 7 })
    assert.deepEqual(found.originOf(['log', 'level']), { file: 'environment variable LOG_LEVEL', line: 0, column: 0 })
    const rows = new Map(found.effective().map(row => [row.path, row]))
    assert.equal(rows.get('plugins.p.config.max-idle.perHost')?.origin.file, 'default')
    assert.equal(rows.get('plugins.p.config.max-idle.perHost')?.value, 4)
    assert.equal(rows.get('runtime.dataDir')?.value, found.settings.dataDir)
    assert.deepEqual(found.files.map(file => file.split('/').slice(-2).join('/')).filter(file => !file.startsWith('config-')), ['config/default.yaml', 'config/production.yaml'])
    assert.ok(found.files.some(file => file.endsWith('mine.yaml')))
  })

  it('come from the host if the working directory has none, and a --config is added to them', async () => {
    const found = await loadDeployment({ cwd: folder({}), env: { BACKPLANE_ENV: 'production' } })
    assert.ok(found.entries.some(({ name }) => name === 'http'))
    assert.equal(found.settings.log.format, 'json')
    assert.ok(found.files[0]!.endsWith('config/default.yaml') && found.files.length === 3, 'a default.yaml that appears is seen')
  })

  it('take BACKPLANE_ENV before NODE_ENV, and development without either', async () => {
    const files = { 'config/default.yaml': '{}', 'config/staging.yaml': 'log: { level: error }' }
    assert.equal((await load(files, { BACKPLANE_ENV: 'staging', NODE_ENV: 'production' })).settings.log.level, 'error')
    assert.equal((await load(files)).environment, 'development')
    assert.equal((await load(files, { NODE_ENV: 'whatever' })).environment, 'whatever')
  })

  it('read .env in development only, and never over a real variable', async () => {
    const files = { 'config/default.yaml': p('{ host: "${env:THE_HOST:-none}", port: "${env:THE_PORT:-1}" }'), '.env': 'THE_HOST="from file"\nTHE_PORT=2\n' }
    assert.deepEqual(configOf(await load(files, { THE_PORT: '3' })), { host: 'from file', port: 3 })
    assert.deepEqual(configOf(await load(files, { NODE_ENV: 'production' })), { host: 'none', port: 1 })
  })

  it('may be empty', async () => { for (const text of ['', '# nothing\n', '{}\n', 'plugins:\n']) assert.deepEqual((await load({ 'config/default.yaml': text })).entries, []) })
})

describe('a reference', () => {
  after(clean)

  it('is looked up anywhere in a text, and never evaluated', async () => {
    const found = await load({
      'config/default.yaml': p("{ host: 'a-${env:ONE}-${env:TWO:-b}-${file:../note.txt}-$${env:ONE}' }"), 'note.txt': 'line one\nline two\n',
    }, { ONE: '${env:TWO}$(id)' })
    assert.equal(configOf(found)['host'], 'a-${env:TWO}$(id)-b-line one\nline two-${env:ONE}')
    assert.ok(found.files.some(file => file.endsWith('note.txt')), 'watch looks at the file')
  })

  it('becomes what the setting wants: a number, a switch, a text or a secret', async () => {
    const text = p('{ port: "${env:V}", host: "${env:V}", on: "${env:ON}", password: "${env:V}" }')
    const { port, host, on, password } = configOf(await load({ 'config/default.yaml': text }, { V: '0123', ON: 'false' }))
    assert.deepEqual([port, host, on, String(password), await password.read()], [123, '0123', false, '[secret V]', '0123'])
  })

  it('to a secret becomes a handle, alone or within a text', async () => {
    const one = configOf(await load({ 'config/default.yaml': p('{ password: "${secret:smtp}" }') }))['password'] as Secret
    assert.deepEqual([one.references, String(one)], [['smtp'], '[secret smtp]'])
    const two = configOf(await load({ 'config/default.yaml': p('{ password: "${secret:a}:${env:DB_PASSWORD}@${secret:b}" }') }, { DB_PASSWORD: 'swordfish' }))['password'] as Secret
    assert.deepEqual(two.references, ['a', 'b'])
    const source = { read: async (name: string) => name.toUpperCase(), watch: () => () => {} }
    assert.equal(await two.bind(source).read(), 'A:swordfish@B')
  })

  it('to a variable whose name says so is a secret too, and nothing shows its value', async () => {
    const found = await load({ 'config/default.yaml': p('{ password: "${env:SMTP_PASSWORD}" }') }, { SMTP_PASSWORD: 'swordfish' })
    assert.equal(await configOf(found)['password'].read(), 'swordfish')
    assert.ok(!JSON.stringify([found.effective(), configOf(found)]).includes('swordfish'))
    for (const name of ['API_KEY', 'OPENAI_APIKEY', 'VAULT_TOKEN', 'PASSWORD', 'REDIS_URL', 'db_password', 'SECRET_KEY_BASE']) assert.ok(soundsSecret(name), name)
    const more = ['SMTP_PASS', 'DB_PASS', 'MYSQL_PWD', 'PGPASSWORD', 'MYPASSWORD', 'AUTHTOKEN', 'CLIENTSECRET', 'AWS_SECRET_ACCESS_KEY', 'SENTRY_DSN']
    const addresses = ['POSTGRES_URL', 'MONGODB_URI', 'AMQP_URL', 'TEST_DATABASE_URL', 'CELERY_BROKER_URL']
    for (const name of [...more, ...addresses]) assert.ok(soundsSecret(name), name)
    const open = ['PORT', 'MAX_TOKENS', 'MONKEY', 'KEYBOARD', 'AUTHOR', 'TOKENIZER', 'PWD', 'OLDPWD', 'COMPASS', 'BYPASS', 'PUBLIC_URL', 'PASSWORDLESS', 'DATABASE_URLS_SEEN']
    for (const name of open) assert.ok(!soundsSecret(name), name)
  })

  it('to a variable with the address of a server and its password is a secret, whatever its name', async () => {
    const file = { 'config/default.yaml': p('{ password: "${env:UPSTREAM}" }') }
    for (const UPSTREAM of ['smtp://me:sword%2Ffish@mail:25', 'https://:swordfish@h/x?y']) {
      const found = await load(file, { UPSTREAM })
      assert.equal(await configOf(found)['password'].read(), UPSTREAM)
      assert.doesNotMatch(JSON.stringify([found.effective(), configOf(found)]), /swordf|%2F/)
    }
    for (const value of ['http://h:80/x:y@z', 'https://me@h/', 'a:b@c', 'https://h/?to=a:b@c']) assert.ok(!holdsPassword(value), value)
  })

  const safe = fc.string({ unit: fc.constantFrom(...'$${}:-ab ENVenvfilesecret\n\\'), maxLength: 60 })
  it('is parsed whatever the text is', () => fc.assert(fc.property(fc.oneof(safe, fc.string()), text => {
    const parts = parseReferences(text)
    if ('reason' in parts) { assert.ok(parts.expected && text.includes(parts.source)); return }
    // Put together again, it is the same text, but for the escapes.
    assert.equal(parts.map(part => (typeof part === 'string' ? part : part.source)).join(''), text.replace(/\$\$\{/g, '${'))
    if (!text.includes('${')) assert.deepEqual(parts, [text])
  }), { numRuns: 1000 }))

  it('keeps what is literal literal', () => fc.assert(fc.property(fc.string(), fc.string(), (before, after) => {
    const literal = (text: string) => text.replace(/[$]/g, '')
    assert.deepEqual(parseReferences(`${literal(before)}$\${env:X}${literal(after)}`), [`${literal(before)}\${env:X}${literal(after)}`])
  })))
})

describe('what settings show of themselves', () => {
  it('is nothing under a name that sounds secret', () => {
    for (const name of ['api_key', 'apiKey', 'api-key', 'password', 'dbPassword', 'token', 'accessToken', 'client_secret', 'Authorization']) assert.deepEqual(conceal({ [name]: 'x1' }), { [name]: '[hidden]' }, name)
    assert.deepEqual(conceal({ password: 1234, keys: ['a', 'b'] }), { password: '[hidden]', keys: ['[hidden]', '[hidden]'] })
  })
  it('is all that only speaks of a secret, is a switch, empty or a handle', () => {
    const open = { tokenTtlMs: 5, keyFile: '/x', password: '', credentials: true, maxTokens: 9, monkey: 'x', secret: Secret.of('A', 'b'), none: null }
    assert.deepEqual(conceal(open), open)
  })
  for (const [text, shown] of [
    ['redis://:pw@h:1/0', 'redis://:[hidden]@h:1/0'], ['a postgres://u:p/w#d@h/x b', 'a postgres://u:[hidden]@h/x b'], ['http://h:8000/a@b', 'http://h:8000/a@b'],
    ['https://h/x?api_key=abc&size=3', 'https://h/x?api_key=[hidden]&size=3'], ['http://127.0.0.1:8000', 'http://127.0.0.1:8000'],
  ] as const) it(`is ${shown} of an address`, () => assert.equal(conceal(text, ['url']), shown))
})

describe('a variable', () => {
  after(clean)
  const text = p('{ limits: { requests: 1 } }')

  it('sets any setting, whatever its case, dashes and underscores', async () => {
    for (const name of ['BACKPLANE__plugins__p__config__max-idle__perHost', 'BACKPLANE__PLUGINS__P__CONFIG__MAX_IDLE__PER_HOST', 'BACKPLANE__plugins__p__config__maxidle__perhost']) {
      assert.deepEqual(configOf(await load({ 'config/default.yaml': text }, { [name]: '9' }))['max-idle'], { perHost: 9 })
    }
  })

  it('is read as a YAML scalar, unless the setting wants a text or a secret', async () => {
    const at = (key: string, value: string) => ({ [`BACKPLANE__plugins__p__config__${key}`]: value })
    const config = configOf(await load({ 'config/default.yaml': text }, { ...at('port', '9000'), ...at('host', '9000'), ...at('on', 'true'), ...at('password', 'swordfish'), ...at('limits__requests', '5'), ...at('limits__jobs', '6') }))
    const { password, ...rest } = config
    assert.deepEqual(rest, { port: 9000, host: '9000', on: true, limits: { requests: 5, jobs: 6 } })
    assert.equal(await password.read(), 'swordfish')
    assert.match(String(password), /^\[secret BACKPLANE__/)
  })

  it('sets and removes what is no setting of a plugin', async () => {
    const found = await load({ 'config/default.yaml': text }, { BACKPLANE__runtime__grace_ms: '500', BACKPLANE__log__format: 'json', BACKPLANE__plugins__p: 'false' })
    assert.deepEqual([found.settings.graceMs, found.settings.log.format, found.disabled], [500, 'json', ['p']])
  })

  it('of a plugin that is switched off is not missed', async () => {
    await load({ 'config/default.yaml': 'plugins:\n  p: false\n' }, { BACKPLANE__plugins__p__config__port: '1' })
  })

  it('may hold references', async () => {
    const found = await load({ 'config/default.yaml': text }, { BACKPLANE__plugins__p__config__password: '${secret:smtp}' })
    assert.deepEqual(configOf(found)['password'].references, ['smtp'])
  })

  it('with a short name finds the plugin, also under another instance name, and is taken as it is', async () => {
    const http = PLUGIN.replace("name: 'p'", "name: 'http'")
    const found = await load({ 'config/default.yaml': 'plugins:\n  web: { use: ./http.mjs }\n', 'config/http.mjs': http }, { PORT: '81', HOST: '${env:X}', DATA_DIR: 'elsewhere', LOG_LEVEL: '' })
    assert.deepEqual(configOf(found), { port: 81, host: '${env:X}' })
    assert.match(found.settings.dataDir, /\/elsewhere$/)
    assert.ok(variables.every(({ summary, path }) => summary && /^(runtime|log|plugins)\./.test(path)))
  })

  it('with a long name wins over a short one', async () => {
    assert.equal((await load({ 'config/default.yaml': '{}' }, { LOG_LEVEL: 'warn', BACKPLANE__log__level: 'error' })).settings.log.level, 'error')
  })

  it('with any name at all is matched, refused with a reason, or none of our business', async () => {
    const cwd = folder({ 'config/default.yaml': text })
    const part = fc.oneof(fc.constantFrom('plugins', 'p', 'config', 'port', 'PORT', 'max_idle', 'per-host', 'log', 'level', '', '__proto__', 'constructor', 'use'), fc.string({ maxLength: 8 }).filter(each => !each.includes('\0')))
    await fc.assert(fc.asyncProperty(fc.array(part, { maxLength: 6 }), fc.string({ maxLength: 10 }), async (parts, value) => {
      const name = `BACKPLANE__${parts.join('__')}`
      const found = await loadDeployment({ cwd, env: { [name]: value } })
      for (const problem of found.problems) assert.ok(problem.fix && problem.details['file'] !== undefined, problem.message)
    }), { numRuns: 150 })
    assert.equal(({} as any).port, undefined)
  })

  it('is a scalar in any text', () => fc.assert(fc.property(fc.string(), value => {
    const scalar = scalarOf(value)
    assert.ok(scalar === null || ['string', 'number', 'boolean'].includes(typeof scalar))
    if (typeof scalar === 'string' && !/["']/.test(value)) assert.equal(scalar, value)
  })))
})

describe('the tree of a configuration', () => {
  const key = fc.oneof(fc.string({ unit: fc.constantFrom(...'abcd'), minLength: 1, maxLength: 3 }), fc.constantFrom('__proto__', 'constructor', 'toString'))
  const json = fc.letrec(tie => ({
    value: fc.oneof(
      { maxDepth: 4 }, fc.integer(), fc.boolean(), fc.string(), fc.constant(null),
      fc.array(tie('value'), { maxLength: 3 }), fc.dictionary(key, tie('value'), { maxKeys: 4, noNullPrototype: true }),
    ),
  })).value as fc.Arbitrary<any>
  const map = fc.dictionary(key, json, { maxKeys: 4, noNullPrototype: true })
  const tree = (value: unknown, file = 'f'): Tree => {
    const found = parseYaml(JSON.stringify(value, null, 1), file, '/', error => { throw error })
    assert.ok(found)
    return found
  }
  const isMap = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)
  const own = (value: Record<string, unknown>, name: string) => (Object.hasOwn(value, name) ? value[name] : undefined)
  /** The rule in one line each: null removes, maps merge, all else replaces. */
  const model = (below: unknown, above: unknown): unknown => {
    if (above === null) return undefined
    if (!isMap(above)) return above
    const base = isMap(below) ? below : {}
    return Object.fromEntries([...new Set([...Object.keys(base), ...Object.keys(above)])].flatMap(name => {
      const value = Object.hasOwn(above, name) ? model(own(base, name), above[name]) : base[name]
      return value === undefined ? [] : [[name, value]]
    }))
  }

  it('says what the file says', () => fc.assert(fc.property(map, value => assert.deepEqual(valueOf(tree(value)), value))))

  it('merges maps, replaces lists, removes with null', () => fc.assert(fc.property(map, map, (below, above) => {
    const first = merge(undefined, tree(below))
    assert.deepEqual(valueOf(merge(first, tree(above))), model(model(undefined, below), above))
  })))

  it('gives every value the line that it stands on, after merging too', () => fc.assert(fc.property(map, map, (below, above) => {
    const texts: Record<string, string[]> = { below: JSON.stringify(below, null, 1).split('\n'), above: JSON.stringify(above, null, 1).split('\n') }
    const merged = merge(merge(undefined, tree(below, 'below')), tree(above, 'above'))
    for (const { path, node } of leaves(merged)) {
      const line = texts[node.at.file]![node.at.line - 1]!.slice(node.at.column - 1)
      assert.ok(line.startsWith(JSON.stringify(node.value)), `${path.join('.')} = ${JSON.stringify(node.value)} is not at ${line}`)
      assert.equal(find(merged, path), node)
    }
  })))

  it('is made of any text, or refused with a place', () => fc.assert(fc.property(fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(...'ab:-[]{}&*!|>#\'" \n\t,?'), maxLength: 80 })), text => {
    let told = 0
    const found = parseYaml(text, 'f', '/', error => { told++; assert.equal(error.code, 'CONFIG_SYNTAX'); assert.ok(Number(error.details['line']) >= 0) })
    if (!told && found) valueOf(found)
  }), { numRuns: 1000 }))
})

describe('the nearest name', () => {
  it('forgives a slip, case and dashes, and does not invent', () => {
    assert.deepEqual(nearest('prot', ['port', 'host']), ['port'])
    assert.deepEqual(nearest('maxsize', ['max-size']), ['max-size'])
    assert.deepEqual(nearest('access', ['access-open', 'agents']), ['access-open'])
    assert.deepEqual(nearest('post', ['./post', './pass/post']), ['./post'])
    assert.deepEqual(nearest('zebra', ['port', 'host']), [])
  })
  it('is itself, if it is there', () => fc.assert(fc.property(fc.array(fc.string({ minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 8 }), names => assert.ok(nearest(names[0]!, names).length))))
})

describe('the tables of the host', () => {
  for (const [owner, table] of Object.entries({ CONFIG: ConfigErrors, LOADER: LoaderErrors })) for (const [key, make] of Object.entries(table)) it(`${owner}_${key} is whole`, () => {
    const holes = [...`${make.shape.message} ${make.shape.fix}`.matchAll(/\{(\w+)\}/g)].map(each => each[1]!)
    const error = (make as any)(Object.fromEntries(holes.map(hole => [hole, `<${hole}>`])))
    assert.equal(error.code, `${owner}_${key}`)
    assert.ok(error.fix && !/\{\w+\}/.test(error.message + error.fix), error.fix)
  })
})
