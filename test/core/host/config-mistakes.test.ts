import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createRuntime } from '#core'
import { createLogger } from '../../../core/host/logger.ts'
import { explain, loadDeployment, type ProblemRow } from '../../../core/host/loader.ts'

type Files = Readonly<Record<string, string | Buffer>>
interface Mistake {
  readonly name: string
  /** Below the working directory; `config/p.mjs` and the others below are always there. */
  readonly files: Files
  readonly env?: Readonly<Record<string, string>>
  readonly configFile?: string
  readonly code: string
  readonly file: string
  readonly line: number
  readonly path?: string
  readonly expected: string | RegExp
  readonly got?: string | RegExp
  readonly fix: RegExp
}

const PLUGINS: Files = {
  'config/p.mjs': `
    import { definePlugin, Secret } from 'backplane'
    import { z } from 'zod'
    export default definePlugin({ name: 'p', setup() {}, config: z.strictObject({
      port: z.int().min(0).max(65535).default(80), host: z.string().optional(), mode: z.enum(['fast', 'safe']).optional(), on: z.boolean().optional(),
      tags: z.array(z.string().min(2)).optional(), nested: z.strictObject({ depth: z.int(), name: z.string().optional() }).optional(),
      limits: z.record(z.string(), z.number()).optional(), named: z.record(z.string().regex(/^[a-z]+$/, 'is named in small letters'), z.number()).optional(), max_size: z.number().optional(), maxSize: z.number().optional(),
      password: z.instanceof(Secret).meta({ type: 'string' }).optional(), when: z.iso.datetime().optional(),
    }) })`,
  'config/plain.mjs': `import { definePlugin } from 'backplane'\nexport default definePlugin({ name: 'plain', setup() {} })`,
  'config/database.mjs': `import { definePlugin } from 'backplane'\nexport default definePlugin({ name: 'database', setup() {} })`,
  'config/refs.mjs': `
    import { defineService } from 'backplane'
    export const A = defineService('test.a'), B = defineService('test.b'), B2 = defineService('test.b', { version: 2 })`,
  'config/a.mjs': `import { definePlugin } from 'backplane'\nimport { A, B } from './refs.mjs'\nexport default definePlugin({ name: 'a', uses: { b: B }, provides: [A], setup() {} })`,
  'config/b.mjs': `import { definePlugin } from 'backplane'\nimport { A, B } from './refs.mjs'\nexport default definePlugin({ name: 'b', uses: { a: A }, provides: [B], setup() {} })`,
  'config/b2.mjs': `import { definePlugin } from 'backplane'\nimport { B2 } from './refs.mjs'\nexport default definePlugin({ name: 'b2', provides: [B2], setup() {} })`,
  'config/b-bad.mjs': `import { definePlugin } from 'backplane'\nimport { z } from 'zod'\nimport { B } from './refs.mjs'\nexport default definePlugin({ name: 'b', provides: [B], config: z.strictObject({}), setup() {} })`,
}
const DEFAULT = 'config/default.yaml'
const p = (config: string): Files => ({ [DEFAULT]: `plugins:\n  p:\n    use: ./p.mjs\n    config: ${config}\n` })
const plugin = (file: string, text: string): Files => ({ [DEFAULT]: `plugins:\n  mine: { use: ./${file} }\n`, [`config/${file}`]: text })
const setting = { file: DEFAULT, line: 4 }

const mistakes: readonly Mistake[] = [
  // The YAML itself.
  { name: 'a key twice', files: { [DEFAULT]: 'log:\n  level: info\n  level: warn\n' }, code: 'CONFIG_SYNTAX', file: DEFAULT, line: 3, expected: 'each key once', fix: /Keep one/ },
  { name: 'a tab as indentation', files: { [DEFAULT]: 'log:\n\tlevel: info\n' }, code: 'CONFIG_SYNTAX', file: DEFAULT, line: 2, expected: /spaces/, fix: /tab/ },
  { name: 'a bracket that is not closed', files: { [DEFAULT]: 'plugins:\n  p: { use: ./p.mjs\n' }, code: 'CONFIG_SYNTAX', file: DEFAULT, line: 3, expected: /./, fix: /./ },
  { name: 'an alias bomb', files: { [DEFAULT]: `a: &a [${'1,'.repeat(30)}]\n${'bcdefg'.split('').map((key, at) => `${key}: &${key} [${`*${'abcdefg'[at]},`.repeat(30)}]`).join('\n')}\n` },
    code: 'CONFIG_SYNTAX', file: DEFAULT, line: 1, expected: /at most 20000 values/, fix: /aliases/ },
  { name: 'an alias to nothing', files: { [DEFAULT]: 'log:\n  level: *info\n' }, code: 'CONFIG_SYNTAX', file: DEFAULT, line: 2, expected: /anchor/, fix: /anchor/ },
  { name: 'a tag that would evaluate', files: { [DEFAULT]: 'log:\n  level: !!js/function "x"\n' }, code: 'CONFIG_SYNTAX', file: DEFAULT, line: 2, expected: 'a plain value', fix: /nothing .* is evaluated/ },
  { name: 'a merge key', files: { [DEFAULT]: 'plugins:\n  p: &p\n    use: ./p.mjs\n  q:\n    <<: *p\n    use: ./p.mjs\n' }, code: 'CONFIG_SYNTAX', file: DEFAULT, line: 5, expected: 'the settings themselves', fix: /other: \*first/ },
  { name: 'two documents', files: { [DEFAULT]: 'log: { level: info }\n---\nlog: { level: warn }\n' }, code: 'CONFIG_SYNTAX', file: DEFAULT, line: 2, expected: 'one document', fix: /---/ },
  { name: 'a number that cannot be kept', files: p('{ host: 12345678901234567890 }'), code: 'CONFIG_SYNTAX', ...setting, expected: /9007199254740991/, fix: /quotes/ },
  { name: 'a list instead of settings', files: { [DEFAULT]: '- log\n' }, code: 'CONFIG_SHAPE', file: DEFAULT, line: 1, expected: /a map with runtime, log and plugins/, fix: /Write a map/ },
  { name: 'a file that is not UTF-8', files: { [DEFAULT]: Buffer.from([0x61, 0x3a, 0xff, 0xfe]) }, code: 'CONFIG_FILE_UNREADABLE', file: DEFAULT, line: 0, expected: /UTF-8/, fix: /UTF-8/ },
  // Files and environments.
  { name: 'a --config that is not there', files: {}, configFile: 'my.yaml', code: 'CONFIG_FILE_MISSING', file: 'my.yaml', line: 0, expected: /YAML file/, fix: /--config/ },
  { name: 'a --config that is a folder', files: {}, configFile: 'config', code: 'CONFIG_FILE_UNREADABLE', file: 'config', line: 0, expected: /readable/, fix: /readable/ },
  { name: 'an environment with a slip', files: {}, env: { BACKPLANE_ENV: 'prodution' }, code: 'CONFIG_ENVIRONMENT', file: 'environment variable BACKPLANE_ENV', line: 0, expected: /a file/, got: 'prodution', fix: /production/ },
  { name: 'an environment that climbs out', files: {}, env: { BACKPLANE_ENV: '../../etc/x' }, code: 'CONFIG_ENVIRONMENT', file: 'environment variable BACKPLANE_ENV', line: 0, expected: /letters/, fix: /letters/ },
  // The shape of the file.
  { name: 'an unknown section', files: { [DEFAULT]: 'pluggins: {}\n' }, code: 'CONFIG_UNKNOWN_KEY', file: DEFAULT, line: 1, path: 'pluggins', expected: 'plugins', fix: /"plugins"/ },
  { name: 'an unknown setting of the runtime', files: { [DEFAULT]: 'runtime:\n  timeouts:\n    strat: 5\n' }, code: 'CONFIG_UNKNOWN_KEY', file: DEFAULT, line: 3, path: 'runtime.timeouts.strat', expected: 'start', fix: /"start"/ },
  { name: 'a name that is none', files: { [DEFAULT]: 'plugins:\n  p:\n    use: ./p.mjs\n    config:\n      named: { X Y: 1 }\n' }, code: 'CONFIG_SETTING', ...setting, line: 5, path: 'plugins.p.config.named.X Y', expected: 'another name', got: '"X Y"', fix: /another name/ },
  { name: 'a level that does not exist', files: { [DEFAULT]: 'log:\n  level: verbose\n' }, code: 'CONFIG_SETTING', file: DEFAULT, line: 2, path: 'log.level', expected: /one of "debug"/, got: '"verbose"', fix: /"warn"/ },
  { name: 'a time that is a text', files: { [DEFAULT]: 'runtime:\n  graceMs: 30s\n' }, code: 'CONFIG_SETTING', file: DEFAULT, line: 2, path: 'runtime.graceMs', expected: /a whole number from 100 to 3600000/, got: '"30s"', fix: /whole number/ },
  { name: 'a plugin set to true', files: { [DEFAULT]: 'plugins:\n  health: true\n' }, code: 'CONFIG_SHAPE', file: DEFAULT, line: 2, path: 'plugins.health', expected: /false, or a map/, got: 'true', fix: /false/ },
  { name: 'a plugin with nothing after its colon', files: { [DEFAULT]: 'plugins:\n  health:\n' }, code: 'CONFIG_NOTHING_TO_REMOVE', file: DEFAULT, line: 2, path: 'plugins.health', expected: /\{\}/, fix: /health: \{\}/ },
  { name: 'a setting beside config instead of in it', files: { [DEFAULT]: 'plugins:\n  p:\n    use: ./p.mjs\n    port: 80\n' }, code: 'CONFIG_UNKNOWN_KEY', ...setting, path: 'plugins.p.port', expected: /config/, fix: /optional.*`config:` \(config\.port\)/ },
  { name: 'settings that are a list', files: p('[1, 2]'), code: 'CONFIG_SHAPE', ...setting, path: 'plugins.p.config', expected: 'a map of settings', got: 'a list of 2', fix: /map/ },
  { name: 'optional that is a word', files: { [DEFAULT]: 'plugins:\n  p:\n    use: ./p.mjs\n    optional: maybe\n' }, code: 'CONFIG_SETTING', ...setting, expected: 'true or false', got: '"maybe"', fix: /true or false/ },
  { name: 'isolation', files: { [DEFAULT]: 'plugins:\n  p:\n    use: ./p.mjs\n    isolation: worker\n' }, code: 'CONFIG_ISOLATION', ...setting, expected: 'no such key', fix: /Remove/ },
  // The settings of a plugin.
  { name: 'an unknown setting', files: p('{ prot: 80 }'), code: 'CONFIG_UNKNOWN_KEY', ...setting, path: 'plugins.p.config.prot', expected: 'port', fix: /"port"/ },
  { name: 'an unknown setting below another', files: p('{ nested: { dept: 3, depth: 3 } }'), code: 'CONFIG_UNKNOWN_KEY', ...setting, path: 'plugins.p.config.nested.dept', expected: 'depth', fix: /"depth"/ },
  { name: 'a setting of a plugin that takes none', files: { [DEFAULT]: 'plugins:\n  plain:\n    use: ./plain.mjs\n    config: { a: 1 }\n' }, code: 'CONFIG_UNKNOWN_KEY', ...setting, expected: 'no setting', fix: /Nothing is known/ },
  { name: 'a text for a number', files: p('{ port: eighty }'), code: 'CONFIG_SETTING', ...setting, path: 'plugins.p.config.port', expected: 'a whole number from 0 to 65535', got: '"eighty"', fix: /whole number/ },
  { name: 'a number out of range', files: p('{ port: 99999 }'), code: 'CONFIG_SETTING', ...setting, expected: /to 65535/, got: '99999', fix: /65535/ },
  { name: 'a number for a text', files: p('{ host: 127 }'), code: 'CONFIG_SETTING', ...setting, expected: 'a text', got: '127', fix: /text/ },
  { name: 'yes for true', files: p('{ on: yes }'), code: 'CONFIG_SETTING', ...setting, expected: 'true or false', got: '"yes"', fix: /true/ },
  { name: 'a word that is not one of the choices', files: p('{ mode: quick }'), code: 'CONFIG_SETTING', ...setting, expected: 'one of "fast", "safe"', got: '"quick"', fix: /"fast"/ },
  { name: 'one bad item of a list', files: p('\n      tags:\n        - ok\n        - x'), code: 'CONFIG_SETTING', file: DEFAULT, line: 7, path: 'plugins.p.config.tags.1', expected: /at least 2 characters/, got: '"x"', fix: /2/ },
  { name: 'a text for a list', files: p('{ tags: "a,b" }'), code: 'CONFIG_SETTING', ...setting, expected: 'a list', got: '"a,b"', fix: /list/ },
  { name: 'a bad value under a free key', files: p('{ limits: { a: 1, b: many } }'), code: 'CONFIG_SETTING', ...setting, path: 'plugins.p.config.limits.b', expected: 'a number', got: '"many"', fix: /number/ },
  { name: 'a missing setting', files: p('{ nested: { name: x } }'), code: 'CONFIG_SETTING', ...setting, path: 'plugins.p.config.nested.depth', expected: 'a whole number', got: 'nothing', fix: /whole number/ },
  { name: 'a role with a slip', files: { [DEFAULT]: 'runtime:\n  roles: [api, wroker]\n' }, code: 'CONFIG_SETTING', file: DEFAULT, line: 2, path: 'runtime.roles', expected: /a list of at least 1 out of "api", "worker", "scheduler", "all"/, got: 'a list of 2', fix: /list/ },
  { name: 'a time in no known form', files: p('{ when: tomorrow }'), code: 'CONFIG_SETTING', ...setting, expected: /date-time/, got: '"tomorrow"', fix: /date-time/ },
  { name: 'a password in the file', files: p('{ password: hunter2 }'), code: 'CONFIG_SECRET_PLAIN', ...setting, expected: 'a reference to a secret', got: /not shown/, fix: /\$\{env:NAME\} or \$\{secret:name\}/ },
  { name: 'a secret where none belongs', files: p('{ host: "${secret:host}" }'), code: 'CONFIG_SECRET_REFUSED', ...setting, expected: 'a text, not a secret', got: '[secret host]', fix: /z\.instanceof\(Secret\)/ },
  { name: 'a secret variable where none belongs', files: p('{ host: "http://${env:API_TOKEN}@h" }'), env: { API_TOKEN: 'sesame-open' }, code: 'CONFIG_SECRET_REFUSED', ...setting, expected: 'a text, not a secret', got: '[secret API_TOKEN]', fix: /z\.instanceof\(Secret\)/ },
  // References.
  { name: 'a variable that is not set', files: p('{ host: "${env:MY_HOST}" }'), code: 'CONFIG_VARIABLE_MISSING', ...setting, expected: /MY_HOST/, got: 'nothing', fix: /\$\{env:MY_HOST:-value\}/ },
  { name: 'a file that is not there', files: p('{ host: "${file:host.txt}" }'), code: 'CONFIG_FILE_REFERENCE', ...setting, expected: /text file/, got: /no such file/, fix: /path/ },
  { name: 'a file that is too large', files: { ...p('{ host: "${file:big.txt}" }'), 'config/big.txt': 'x'.repeat(70_000) }, code: 'CONFIG_FILE_REFERENCE', ...setting, expected: /64 kB/, got: /70000/, fix: /64 kB/ },
  { name: 'a reference without its kind', files: p('{ host: "${HOST}" }'), code: 'CONFIG_REFERENCE', ...setting, expected: /\$\{env:NAME\}/, got: '${HOST}', fix: /\$\$\{/ },
  { name: 'a reference of an unknown kind', files: p('{ host: "${evn:HOST}" }'), code: 'CONFIG_REFERENCE', ...setting, expected: /\$\{env:NAME\}/, got: '${evn:HOST}', fix: /env/ },
  { name: 'a reference that is not closed', files: p('{ host: "${env:HOST" }'), code: 'CONFIG_REFERENCE', ...setting, expected: /closing/, fix: /closing/ },
  { name: 'a name that no variable can have', files: p('{ host: "${env:MY HOST}" }'), code: 'CONFIG_REFERENCE', ...setting, expected: /\$\{env:NAME\}/, fix: /NAME/ },
  { name: 'a variable with a bad value in it', files: p('{ port: "${env:MY_PORT}" }'), env: { MY_PORT: 'http' }, code: 'CONFIG_SETTING', ...setting, expected: /whole number/, got: '"http"', fix: /whole number/ },
  // Variables.
  { name: 'a variable that matches nothing', files: p('{}'), env: { BACKPLANE__plugins__p__config__prot: '1' },
    code: 'CONFIG_VARIABLE_UNKNOWN', file: 'environment variable BACKPLANE__plugins__p__config__prot', line: 0, expected: 'BACKPLANE__plugins__p__config__port', fix: /BACKPLANE__plugins__p__config__port\?/ },
  { name: 'a variable with one underscore for two', files: p('{}'), env: { BACKPLANE__plugins_p_config_port: '1' },
    code: 'CONFIG_VARIABLE_UNKNOWN', file: 'environment variable BACKPLANE__plugins_p_config_port', line: 0, expected: /./, fix: /BACKPLANE__plugins__p__config__port/ },
  { name: 'a variable for a setting of a plugin without `config`', files: p('{}'), env: { BACKPLANE__plugins__p__port: '1' },
    code: 'CONFIG_VARIABLE_UNKNOWN', file: 'environment variable BACKPLANE__plugins__p__port', line: 0, expected: /./, fix: /BACKPLANE__plugins__p__config__port/ },
  { name: 'a role of the environment with a slip', files: {}, env: { BACKPLANE_ROLES: 'api,wroker' }, code: 'CONFIG_SETTING', file: 'environment variable BACKPLANE_ROLES', line: 0, path: 'runtime.roles', expected: /worker/, got: '"api,wroker"', fix: /worker/ },
  { name: 'a variable for no plugin', files: p('{}'), env: { BACKPLANE__plugins__q__config__port: '1' }, code: 'CONFIG_VARIABLE_UNKNOWN', file: 'environment variable BACKPLANE__plugins__q__config__port', line: 0, expected: /./, fix: /plugins__p/ },
  { name: 'a variable that matches two settings', files: p('{}'), env: { BACKPLANE__plugins__p__config__max_size: '1' },
    code: 'CONFIG_VARIABLE_AMBIGUOUS', file: 'environment variable BACKPLANE__plugins__p__config__max_size', line: 0, expected: /one setting/, fix: /config file/ },
  { name: 'a variable with a bad value', files: p('{}'), env: { BACKPLANE__PLUGINS__P__CONFIG__PORT: 'http' },
    code: 'CONFIG_SETTING', file: 'environment variable BACKPLANE__PLUGINS__P__CONFIG__PORT', line: 0, path: 'plugins.p.config.port', expected: /whole number/, got: '"http"', fix: /whole number/ },
  { name: 'a short variable with a bad value', files: {}, env: { LOG_LEVEL: 'loud' }, code: 'CONFIG_SETTING', file: 'environment variable LOG_LEVEL', line: 0, path: 'log.level', expected: /one of/, got: '"loud"', fix: /"debug"/ },
  { name: 'a bad value in .env', files: { '.env': '# mine\n\nLOG_LEVEL=loud\n' }, code: 'CONFIG_SETTING', file: '.env', line: 3, path: 'log.level', expected: /one of/, got: '"loud"', fix: /"debug"/ },
  { name: 'a variable that it is dangerous to ignore', files: { [DEFAULT]: 'plugins:\n  database: { use: ./database.mjs }\n' }, env: { DATABASE_URL: 'postgres://u:sesame-open@h/db' },
    code: 'CONFIG_VARIABLE_UNUSED', file: 'environment variable DATABASE_URL', line: 0, expected: 'no such variable', got: /not shown/, fix: /Unset/ },
  // Finding and loading plugins.
  { name: 'a plugin with a slip in its name', files: { [DEFAULT]: 'plugins:\n  helth: {}\n' }, code: 'LOADER_UNKNOWN', file: DEFAULT, line: 2, path: 'plugins.helth', expected: 'health', got: 'helth', fix: /"health"/ },
  { name: 'a path to nothing', files: { [DEFAULT]: 'plugins:\n  mine:\n    use: ./nothing.mjs\n' }, code: 'LOADER_NOT_FOUND', file: DEFAULT, line: 3, expected: /file/, got: 'nothing', fix: /path/ },
  { name: 'a folder without an entry', files: { [DEFAULT]: 'plugins:\n  mine: { use: ./folder }\n', 'config/folder/README.md': 'x' }, code: 'LOADER_NO_ENTRY', file: DEFAULT, line: 2, expected: /entry/, fix: /index\.js/ },
  { name: 'a package.json that is broken', files: { [DEFAULT]: 'plugins:\n  mine: { use: ./folder }\n', 'config/folder/package.json': '{' }, code: 'LOADER_PACKAGE', file: 'config/folder/package.json', line: 0, expected: /JSON/, fix: /package\.json/ },
  { name: 'a package for another backplane', files: { [DEFAULT]: 'plugins:\n  mine: { use: ./folder }\n', 'config/folder/package.json': '{"type":"module","peerDependencies":{"backplane":"^9.1.0"}}', 'config/folder/index.js': 'throw new Error("never runs")' },
    code: 'LOADER_PEER', file: DEFAULT, line: 2, expected: 'backplane ^9.1.0', got: /^\d+\.\d+\.\d+/, fix: /Install/ },
  { name: 'a broken module', files: plugin('bad.mjs', 'const a = 1\nexport default {\n  name: a a,\n}\n'), code: 'LOADER_SYNTAX', file: 'config/bad.mjs', line: 3, expected: /JavaScript/, fix: /Correct the file/ },
  { name: 'a broken TypeScript module', files: plugin('bad.ts', 'const a: number = 1\nexport default { a a }\n'), code: 'LOADER_SYNTAX', file: 'config/bad.ts', line: 2, expected: /TypeScript/, fix: /Correct the file/ },
  { name: 'a broken module behind the entry', files: { ...plugin('bad.mjs', "import './inner.mjs'\nexport default 1\n"), 'config/inner.mjs': '\n\nlet let = 3 +\n' }, code: 'LOADER_SYNTAX', file: 'config/inner.mjs', line: 3, expected: /JavaScript/, fix: /Correct the file/ },
  { name: 'a module that throws', files: plugin('bad.mjs', 'const a = 1\n\nthrow new Error(`no ${a}`)\n'), code: 'LOADER_THREW', file: 'config/bad.mjs', line: 3, expected: /loads/, got: /no 1/, fix: /optional/ },
  { name: 'a package that is not installed', files: plugin('bad.mjs', "\nimport 'not-installed-anywhere'\n"), code: 'LOADER_IMPORT', file: 'config/bad.mjs', line: 2, expected: /exists/, got: /not-installed-anywhere/, fix: /npm install/ },
  { name: 'a file that is not there to import', files: plugin('bad.mjs', "import './not-here.mjs'\n"), code: 'LOADER_IMPORT', file: 'config/bad.mjs', line: 1, expected: /exists/, fix: /Correct the import/ },
  { name: 'a name that is not exported', files: plugin('bad.mjs', "\n\nimport { definePlugn } from 'backplane'\n"), code: 'LOADER_IMPORT', file: 'config/bad.mjs', line: 3, expected: /exported/, got: /definePlugn/, fix: /exported/ },
  { name: 'a part of backplane that does not exist', files: plugin('bad.mjs', "import 'backplane/contract/jobs'\n"), code: 'LOADER_IMPORT', file: 'config/bad.mjs', line: 1, expected: /exists/, got: /backplane\/contract\/jobs/, fix: /import/ },
  { name: 'a CommonJS plugin', files: plugin('bad.cjs', 'module.exports = {}\n'), code: 'LOADER_COMMONJS', file: 'config/bad.cjs', line: 1, expected: 'an ES module', fix: /"type": "module"/ },
  { name: 'no default export', files: plugin('bad.mjs', 'export const plugin = {}\n'), code: 'LOADER_NO_DEFAULT', file: 'config/bad.mjs', line: 1, expected: /default/, got: 'plugin', fix: /export default/ },
  { name: 'a function as default export', files: plugin('bad.mjs', 'export default () => {}\n'), code: 'LOADER_NOT_A_PLUGIN', file: 'config/bad.mjs', line: 1, expected: /definePlugin/, got: 'it is a function', fix: /definePlugin/ },
  { name: 'a definition without setup', files: plugin('bad.mjs', "export default { name: 'x' }\n"), code: 'LOADER_NOT_A_PLUGIN', file: 'config/bad.mjs', line: 1, expected: /definePlugin/, got: /setup/, fix: /definePlugin/ },
  { name: 'a ref that is undefined', files: plugin('bad.mjs', "import { definePlugin } from 'backplane'\nexport default definePlugin({ name: 'x', uses: { jobs: undefined }, setup() {} })\n"),
    code: 'LOADER_NOT_A_PLUGIN', file: 'config/bad.mjs', line: 1, expected: /definePlugin/, got: /uses\.jobs/, fix: /definePlugin/ },
  { name: 'an empty name', files: { [DEFAULT]: 'plugins:\n  " ": {}\n' }, code: 'LOADER_NAME', file: DEFAULT, line: 2, expected: /a name/, fix: /letters/ },
  // How plugins fit together.
  { name: 'a service that nothing provides', files: { [DEFAULT]: 'plugins:\n  a: { use: ./a.mjs }\n' }, code: 'SERVICE_MISSING', file: DEFAULT, line: 2, path: 'plugins.a', expected: /test\.b/, got: 'none', fix: /Add a plugin/ },
  { name: 'a first-party service that is left out', files: { [DEFAULT]: 'plugins:\n  queue-embedded: {}\n' }, code: 'SERVICE_MISSING', file: DEFAULT, line: 2, expected: /database/, fix: /\(database\)/ },
  { name: 'a circle', files: { [DEFAULT]: 'plugins:\n  a: { use: ./a.mjs }\n  b: { use: ./b.mjs }\n' }, code: 'SERVICE_CYCLE', file: DEFAULT, line: 2, expected: 'no circle', got: 'a -> b -> a', fix: /live\(\)/ },
  { name: 'two providers', files: { [DEFAULT]: 'plugins:\n  one: { use: ./b2.mjs }\n  two: { use: ./b2.mjs }\n' }, code: 'SERVICE_DUPLICATE', file: DEFAULT, line: 3, expected: /one provider/, got: 'one and two', fix: /plugins\.two: false/ },
  { name: 'two versions', files: { [DEFAULT]: 'plugins:\n  a: { use: ./a.mjs }\n  b2: { use: ./b2.mjs }\n' }, code: 'SERVICE_VERSION', file: DEFAULT, line: 2, expected: 'version 1', got: 'version 2', fix: /release/ },
]

const folders: string[] = []
function deployment(files: Files): string {
  const cwd = mkdtempSync(join(tmpdir(), 'config-'))
  folders.push(cwd)
  for (const [name, text] of Object.entries({ [DEFAULT]: 'plugins: {}\n', ...PLUGINS, ...files })) {
    mkdirSync(dirname(join(cwd, name)), { recursive: true })
    writeFileSync(join(cwd, name), text)
  }
  return cwd
}

/** As `config check` does it: nothing is set up. */
async function check({ files, env = {}, configFile }: Pick<Mistake, 'files' | 'env' | 'configFile'>): Promise<ProblemRow[]> {
  const found = await loadDeployment({ cwd: deployment(files), env, ...(configFile && { configFile }) })
  const errors: unknown[] = [...found.problems]
  try { createRuntime({ plugins: found.entries, log: createLogger({ level: 'error', format: 'json', write() {} }), offers: found.offers }).check() } catch (error) { errors.push(error) }
  return explain(found, errors)
}

const matches = (actual: string | undefined, wanted: string | RegExp, what: string, row: ProblemRow) =>
  assert.ok(typeof wanted === 'string' ? actual === wanted : wanted.test(actual ?? ''), `${what} should be ${wanted}:\n${JSON.stringify(row, null, 2)}`)

describe('a mistake in the configuration', function () {
  after(() => { for (const folder of folders) rmSync(folder, { recursive: true, force: true }) })

  for (const mistake of mistakes) it(`${mistake.name} is told with its place, what was expected and the fix`, async () => {
    const rows = await check(mistake)
    const row = rows.find(({ code }) => code === mistake.code)
    assert.ok(row, `no ${mistake.code} in ${JSON.stringify(rows, null, 2)}`)
    assert.equal(rows.length, 1, `one mistake, one row: ${JSON.stringify(rows, null, 2)}`)
    assert.deepEqual({ file: row.file, line: row.line }, { file: mistake.file, line: mistake.line }, JSON.stringify(row, null, 2))
    if (mistake.path !== undefined) assert.equal(row.path, mistake.path)
    matches(row.expected, mistake.expected, 'expected', row)
    if (mistake.got !== undefined) matches(row.got, mistake.got, 'got', row)
    matches(row.fix, mistake.fix, 'fix', row)
    assert.ok(!/\{\w+\}/.test(`${row.message} ${row.fix}`.replace(/\$\{[^}]*\}/g, '')), `a hole was left open: ${row.message} ${row.fix}`)
  })

  it('covers thirty kinds and more', () => assert.ok(new Set(mistakes.map(({ code, path, name }) => path ?? name + code)).size >= 30))

  it('comes with all the others in one report, in the order of the file, and none twice', async () => {
    const rows = await check({
      files: {
        [DEFAULT]: [
          'runtime:', '  graceMs: soon', 'log:', '  levl: info', 'plugins:', '  p:', '    use: ./p.mjs', '    config:',
          '      prot: 80', '      host: ${env:NOT_SET}', '      password: hunter2', '      tags: [x]', '  helth: {}', '  health:', '    isolation: worker',
          '  one: { use: ./b2.mjs }', '  two: { use: ./b2.mjs }', '  bad: { use: ./bad.mjs }', '',
        ].join('\n'),
        'config/bad.mjs': 'throw new Error("no")\n',
      },
      env: { BACKPLANE__log__frmat: 'json' },
    })
    assert.deepEqual(rows.filter(({ file }) => file === DEFAULT).map(({ line, code }) => `${line} ${code}`), [
      '2 CONFIG_SETTING', '4 CONFIG_UNKNOWN_KEY', '9 CONFIG_UNKNOWN_KEY', '10 CONFIG_VARIABLE_MISSING', '11 CONFIG_SECRET_PLAIN', '12 CONFIG_SETTING',
      '13 LOADER_UNKNOWN', '15 CONFIG_ISOLATION', '17 SERVICE_DUPLICATE',
    ])
    assert.deepEqual(rows.filter(({ file }) => file !== DEFAULT).map(({ file, line, code }) => `${file}:${line} ${code}`).sort(), [
      'config/bad.mjs:1 LOADER_THREW', 'environment variable BACKPLANE__log__frmat:0 CONFIG_VARIABLE_UNKNOWN',
    ])
    for (const row of rows) assert.ok(row.fix && row.expected && row.got && row.path, JSON.stringify(row))
    assert.ok(!JSON.stringify(rows).includes('hunter2'))
  })

  it('of one plugin is not told again by those that need it', async () => {
    const rows = await check({ files: { [DEFAULT]: 'plugins:\n  a: { use: ./a.mjs }\n  b: { use: ./b-bad.mjs, config: { x: 1 } }\n' } })
    assert.deepEqual(rows.map(({ code, line }) => `${line} ${code}`), ['3 CONFIG_UNKNOWN_KEY'])
  })

  it('of an optional plugin leaves it out, with its phase, and is no problem of the deployment', async () => {
    const cwd = deployment({ [DEFAULT]: 'plugins:\n  p: { use: ./p.mjs, optional: true, config: { prot: 1 } }\n  gone: { use: ./gone.mjs, optional: true }\n  plain: { use: ./plain.mjs }\n' })
    const found = await loadDeployment({ cwd, env: {} })
    assert.deepEqual(found.problems, [])
    await using runtime = await createRuntime({ plugins: found.entries, log: createLogger({ level: 'error', format: 'json', write() {} }) }).start()
    const states = runtime.inspect().plugins.map(({ name, state, problem }) => [name, state, problem?.phase, problem?.code])
    assert.deepEqual(states.sort(), [['gone', 'failed', 'load', 'LOADER_NOT_FOUND'], ['p', 'failed', 'config', 'CONFIG_UNKNOWN_KEY'], ['plain', 'running', undefined, undefined]])
  })

  it('such as a file that can\'t be read is told as that', async () => {
    const cwd = deployment({})
    rmSync(join(cwd, DEFAULT))
    // Of a link to itself nobody can read, not even root.
    symlinkSync('default.yaml', join(cwd, DEFAULT))
    const found = await loadDeployment({ cwd, env: {}, configFile: DEFAULT })
    assert.ok(explain(found, found.problems).some(({ code }) => code === 'CONFIG_FILE_UNREADABLE'))
  })
})
