// What a C++ library that was built for glibc wants of libc and musl does not have, and what programs want of a newer
// one: see linkCxxLibrary in test-targets.mjs. Enough to run tests with, no more.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

char __libc_single_threaded = 0;

unsigned arc4random(void) {
  unsigned value = 0;
  getentropy(&value, sizeof value);
  return value;
}

size_t __strftime_l(char* text, size_t size, const char* format, const struct tm* time, locale_t locale) {
  return strftime_l(text, size, format, time, locale);
}

// Destructors of thread-local objects, the last one made first. Not those of the main thread.
struct destructor {
  void (*run)(void*);
  void* object;
  struct destructor* next;
};

static pthread_key_t destructors;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void run_destructors(void* first) {
  struct destructor* destructor = first;
  while (destructor) {
    // One that runs may register another.
    pthread_setspecific(destructors, destructor->next);
    destructor->run(destructor->object);
    free(destructor);
    destructor = pthread_getspecific(destructors);
  }
}

static void make_key(void) { pthread_key_create(&destructors, run_destructors); }

int __cxa_thread_atexit_impl(void (*run)(void*), void* object, void* library) {
  (void)library;
  pthread_once(&once, make_key);
  struct destructor* destructor = malloc(sizeof *destructor);
  if (!destructor) return -1;
  *destructor = (struct destructor){run, object, pthread_getspecific(destructors)};
  return pthread_setspecific(destructors, destructor);
}

// std::string::_M_replace_cold(char*, size_t, const char*, size_t, size_t), of GCC 13: replaces `old` characters by a
// text that may be a part of the same string; `rest` more follow them.
void _ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE15_M_replace_coldEPcmPKcmm(
    void* self, char* at, size_t old, const char* text, size_t length, size_t rest) {
  (void)self;
  char* copy = malloc(length + 1);
  if (!copy) abort();
  memcpy(copy, text, length);
  memmove(at + length, at + old, rest);
  memcpy(at, copy, length);
  free(copy);
}
