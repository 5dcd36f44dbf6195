// Giving the file of a namespace back, and whoever enters it meanwhile.
#include <sys/stat.h>

#include <thread>

#include "world.h"

using harness::Segment;
using proclock::OpenFailure;

namespace {

Status prune(const Segment& segment) {
  TestPlatform::Memory memory;
  OpenFailure failure;
  return memory.prune(segment.name(), -1, &failure);
}

bool exists(const Segment& segment) {
  struct stat file;
  return stat(segment.path().c_str(), &file) == 0;
}

}  // namespace

TEST("a namespace in which a process is alive is not given back") {
  Segment segment;
  Member member(segment.name());
  CHECK_EQ(prune(segment), Status::kBusy);
  CHECK(exists(segment));
  const Ref ref = member.open("still works");
  CHECK_EQ(member.acquire(ref, Mode::kExclusive), Try::kAcquired);
  member.release(ref);
  member.unbind(ref);
}

TEST(
    "a namespace that everybody has left, or in which everybody died, is given back, and the next one is "
    "new") {
  Segment segment;
  {
    Member left(segment.name());
    Member died(segment.name());
    died.open("a name");
    died.vanish();
  }
  CHECK_EQ(prune(segment), Status::kOk);
  CHECK(!exists(segment));
  Member member(segment.name());
  CHECK_EQ(audit(member).locks, 0u);
}

TEST("what is not there, or is somebody else's, is not given back") {
  Segment segment;
  CHECK_EQ(prune(segment), Status::kRemoved);
  {
    Member member(segment.name());
  }
  CHECK_EQ(chmod(segment.path().c_str(), 0644), 0);
  CHECK_EQ(prune(segment), Status::kPermission);
  CHECK(exists(segment));
}

TEST("whoever enters while namespaces are given back shares one with all others who are in") {
  Segment segment;
  std::atomic<bool> enough{false};
  std::atomic<uint32_t> given_back{0};
  std::thread pruner([&] {
    while (!enough.load()) {
      const Status status = prune(segment);
      if (ok(status)) given_back.fetch_add(1);
      CHECK(ok(status) || status == Status::kBusy || status == Status::kSystem || status == Status::kRemoved);
    }
  });
  for (int round = 0; round < 300; round++) {
    Member first(segment.name());
    Member second(segment.name());
    const Ref ref = first.open("x");
    const Ref other = second.open("x");
    CHECK_EQ(first.acquire(ref, Mode::kExclusive), Try::kAcquired);
    CHECK_EQ(second.acquire(other, Mode::kExclusive), Try::kBusy);
    first.release(ref);
    first.unbind(ref);
    second.unbind(other);
  }
  enough.store(true);
  pruner.join();
  CHECK(given_back.load() != 0);
}
