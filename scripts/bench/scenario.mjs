// Runs one scenario in a process of its own, because what one does to V8 or to the event loop is no business of the next:
// started by index.mjs with the name of a module and its options, it sends back what that measured.
const [module, options] = process.argv.slice(2);
const { run } = await import(`./${module}.mjs`);
const figures = await run(JSON.parse(options));
process.send({ figures }, () => process.exit());
