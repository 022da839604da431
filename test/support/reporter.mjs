import Mocha from 'mocha'

const { EVENT_RUN_BEGIN, EVENT_TEST_RETRY } = Mocha.Runner.constants

let made = false
// A test file that cannot be loaded ends mocha before it makes its reporter.
process.once('exit', () => { if (!made) console.log('0 passed, 1 failed') })

/** Mocha's spec reporter, whose very last line is `N passed, N failed` (`, N skipped` if there are any), whatever went wrong. */
export default class Reporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options)
    made = true
    let began = false
    runner.once(EVENT_RUN_BEGIN, () => { began = true })
    const again = []
    runner.on(EVENT_TEST_RETRY, (test, error) => again.push(`SECOND TRY: ${test.fullTitle()}: ${String(error.message).split('\n')[0]}`))
    // On exit and not on the end of the run: what tests still print after their end must not come behind the line.
    process.once('exit', code => {
      const { passes, failures, pending } = runner.stats ?? { passes: 0, failures: 0, pending: 0 }
      for (const line of again) console.log(line)
      const failed = failures === 0 && (code !== 0 || !began) ? 1 : failures
      console.log(`${passes} passed, ${failed} failed${pending ? `, ${pending} skipped` : ''}`)
    })
  }
}
