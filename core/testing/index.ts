export { eventually, FakeClock, settle } from './clock.ts'
export { conform, defineConformance, type Capabilities, type Case, type Conformance, type Register, type Subject } from './conformance.ts'
export { contribute, createTestRuntime, fake, leftBehind, recordHook, recordLog, type Line, type TestPlugin, type TestRuntime, type TestRuntimeOptions } from './runtime.ts'
