import assert from 'node:assert/strict'
import { join } from 'node:path'
import { createTestRuntime } from 'backplane/testing'
import { HealthCheck } from 'backplane/contracts/health'
import plugin from './index.ts'

describe('{{name}}', () => {
  it('is healthy while the folder can be written', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    await using other = await createTestRuntime({ plugins: [{ plugin, config: { folder: t.dataDir, critical: true } }] })
    const [check] = other.runtime.collect(HealthCheck)
    assert.equal(check!.critical, true)
    assert.deepEqual(await check!.check(new AbortController().signal), { status: 'healthy' })
  })

  it('is unhealthy when it is gone, and says why', async () => {
    await using t = await createTestRuntime({ plugins: [plugin] })
    await using other = await createTestRuntime({ plugins: [{ plugin, config: { folder: join(t.dataDir, 'gone') } }] })
    const result = await other.runtime.collect(HealthCheck)[0]!.check(new AbortController().signal)
    assert.equal(result.status, 'unhealthy')
    assert.match(result.message ?? '', /ENOENT/)
  })
})
