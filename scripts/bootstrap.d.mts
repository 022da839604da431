/** Every file below `folder`, in order of name, without what `skip` refuses. */
export function walk(folder: string, skip?: (name: string) => boolean): string[]
/** Runs `work` while no other process does so under the same lock folder. */
export function withLock<T>(folder: string, waiting: string, work: () => T | Promise<T>): Promise<T>
/** Makes the checkout at `root` ready to run. */
export function bootstrap(root: string): Promise<void>
