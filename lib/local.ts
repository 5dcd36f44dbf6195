export { Local, type LocalConstructor } from './local/local';
