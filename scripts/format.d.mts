/** A part of a source. */
export interface Part { readonly kind: 'code' | 'comment' | 'single' | 'double' | 'template' | 'regexp'; readonly from: number; readonly to: number }
export function tokenize(text: string): Part[]
export interface Problem { readonly line: number; readonly what: string }
export function format(path: string, text: string): { readonly problems: readonly Problem[]; readonly fixed: string }
