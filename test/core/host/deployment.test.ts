import assert from 'node:assert/strict'
import { defineHook, definePlugin, definePoint, defineService, type Plugin } from '#core'
import { neededFor, problemText } from '../../../core/host/deployment.ts'

const Models = defineService<object>('models.models')
const Provider = definePoint<object>('models.provider')
const BeforeCall = defineHook.series<object>('models.before-call')
const Budgets = defineService<object>('budgets.budgets')
const agents = definePlugin({ name: 'agents', uses: { models: Models }, setup() {} })
const budget = definePlugin({ name: 'budget', uses: { budgets: Budgets }, guards: [BeforeCall], setup() {} })
const budgets = definePlugin({ name: 'budgets', provides: [Budgets], setup() {} })
const provider = definePlugin({ name: 'provider', contributes: [Provider], setup() {} })
const other = definePlugin({ name: 'other', setup() {} })
const models = (name: string) => definePlugin({ name, provides: [Models], setup() {} })
const names = (plugins: readonly Plugin[]) => neededFor(['agents'], plugins.map(plugin => ({ plugin }))).map(({ plugin }) => plugin.name)

describe('what a command needs to be set up', () => {
  for (const name of ['models', 'my-models']) {
    it(`has every guard with what it uses, and what is contributed, when "${name}" provides the service`, () => {
      assert.deepEqual(names([models(name), provider, budgets, budget, other, agents]), [name, 'provider', 'budgets', 'budget', 'agents'])
    })
  }
})

describe('a problem, as it is told', () => {
  it('names its place once, whether the message has it or not', () => {
    const place = { file: 'a.yaml', line: 3, column: 5 }
    const row = (message: string, path?: string) => problemText({ ...place, message, code: 'CONFIG_X', ...(path !== undefined && { path }) } as Parameters<typeof problemText>[0])
    assert.equal(row('a.yaml:3:5: it is bad'), 'a.yaml:3:5  it is bad')
    assert.equal(row('a.b: it is bad', 'a.b'), 'a.yaml:3:5  a.b  it is bad')
    assert.equal(row('it is bad', 'a.b'), 'a.yaml:3:5  a.b  it is bad')
  })
})
