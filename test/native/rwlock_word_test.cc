// The rwlock of one word (native/platform/rwlock_word.h), which is what excludes where pthread_rwlock_t can not. The simulation runs
// it in a build for macOS, with every interleaving and order of memory; here are its rules, one by one, and real threads.
#include "../../native/platform/rwlock_word.h"

#include <thread>
#include <vector>

#include "harness.h"

namespace {

using Lock = proclock::WordRwLock<std::atomic>;

TEST("rwlock word: a writer keeps everybody out, readers keep writers out, and all-zero is free") {
  Lock* lock = harness::shared<Lock>();
  CHECK(lock->try_exclusive());
  CHECK(!lock->try_exclusive() && !lock->try_shared());
  lock->unlock();
  for (int n = 0; n < 3; n++) CHECK(lock->try_shared());
  for (int n = 0; n < 3; n++) {
    CHECK(!lock->try_exclusive());
    lock->unlock();
  }
  CHECK_EQ(lock->word.load(), 0u);
  CHECK(lock->try_exclusive());
  lock->init();
  CHECK(lock->try_exclusive());
}

TEST("rwlock word: whatever is in it, each call ends, no count runs over, and init makes it free") {
  Lock* lock = harness::shared<Lock>();
  for (const uint32_t word :
       {1u, 77u, Lock::kReadersMax - 1, Lock::kReadersMax, Lock::kWriter, Lock::kWriter + 1, ~0u - 1, ~0u}) {
    lock->word.store(word);
    CHECK(!lock->try_exclusive());
    CHECK_EQ(lock->try_shared(), word < Lock::kReadersMax);
    CHECK(lock->word.load() <= Lock::kReadersMax || word > Lock::kReadersMax);
    lock->word.store(word);
    lock->unlock();
    CHECK_EQ(lock->word.load(), (word & Lock::kWriter) != 0 ? 0u : word - 1);
    lock->init();
    CHECK(lock->try_exclusive());
  }
  lock->word.store(0);
  lock->unlock();
  CHECK_EQ(lock->word.load(), 0u);
}

// Plain variables: a reader that sees them apart, or a sanitizer that sees a race, has found two inside.
struct Page {
  Lock lock;
  uint64_t left, right;
  std::atomic<uint64_t> reads, writes;
};
void take_turns(Page* page, unsigned seed, int rounds) {
  for (int n = 0; n < rounds; n++) {
    seed = seed * 1103515245 + 12345;
    const bool exclusive = (seed >> 16 & 3) == 0;
    if (!(exclusive ? page->lock.try_exclusive() : page->lock.try_shared())) continue;
    if (exclusive) {
      page->left++;
      page->right++;
      page->writes.fetch_add(1);
    } else {
      CHECK_EQ(page->left, page->right);
      page->reads.fetch_add(1);
    }
    page->lock.unlock();
  }
}
void check(const Page& page) {
  CHECK_EQ(page.lock.word.load(), 0u);
  CHECK_EQ(page.left, page.writes.load());
  CHECK(page.reads.load() > 0 && page.writes.load() > 0);
}

TEST("rwlock word: threads that take it at random see what the last writer wrote, whole") {
  Page* page = harness::shared<Page>();
  std::vector<std::thread> threads;
  for (unsigned n = 1; n <= 4; n++) threads.emplace_back([=] { take_turns(page, n, 200000); });
  for (std::thread& thread : threads) thread.join();
  check(*page);
}

TEST("rwlock word: the same between processes") {
  Page* page = harness::shared<Page>();
  std::vector<pid_t> others;
  for (unsigned n = 1; n <= 4; n++) others.push_back(harness::start([=] { take_turns(page, n, 200000); }));
  for (const pid_t other : others) JOIN_OK(other);
  check(*page);
}

}  // namespace
