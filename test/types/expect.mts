/** Whether the compiler takes two types for the same one. `any` is the same as `any` alone. */
export type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** `typeOf(value).is<T>()` compiles if the value has the type T, no wider and no narrower one. */
export declare function typeOf<A>(value: A): {
  is<B>(...differs: Equal<A, B> extends true ? [] : [{ expected: B; found: A }]): void;
};
