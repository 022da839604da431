/** Brings dist/ up to date; a few milliseconds if it is. */
export function build(root: string): Promise<void>
