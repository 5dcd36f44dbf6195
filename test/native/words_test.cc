// The words on which everything turns: what can be packed can be read back, and predicates say what the tables say.
#include "../../native/core/words.h"

#include <set>

#include "harness.h"

namespace {

using namespace proclock;

constexpr Phase kPhases[] = {Phase::kFree,      Phase::kIdle,  Phase::kTrying, Phase::kHeld,
                             Phase::kReleasing, Phase::kStale, Phase::kStolen, Phase::kLeft};
constexpr Mode kModes[] = {Mode::kShared, Mode::kExclusive};
constexpr uint32_t kOwners[] = {1, 2, 1024, kOwnersMax};
constexpr uint32_t kStorages[] = {0, 1, 2, 4096, 0x7fffffff, 0xffffffff};

// What several bindings of a slot by this process leave as its tag.
uint64_t tag_after(uint32_t bindings, uint32_t owner) {
  uint64_t word = 0;
  for (uint32_t n = 0; n < bindings; n++) word = free_word(idle_word(next_tag(word, owner)));
  return tag_of(idle_word(next_tag(word, owner)));
}

TEST("a slot word gives back the phase, the mode, the storage and the tag that were put into it") {
  for (const Phase phase : kPhases) {
    for (const Mode mode : kModes) {
      for (const uint32_t storage : kStorages) {
        for (const uint32_t owner : kOwners) {
          const uint64_t tag = tag_after(5, owner);
          const uint64_t word = slot_word(phase, mode, storage, tag);
          CHECK(phase_of(word) == phase);
          CHECK(mode_of(word) == mode);
          CHECK_EQ(storage_of(word), storage);
          CHECK_EQ(tag_of(word), tag);
          CHECK_EQ(owner_of(word), owner);
          for (const Phase next : kPhases)
            CHECK_EQ(with_phase(word, next), slot_word(next, mode, storage, tag));
        }
      }
    }
  }
}

TEST("a slot holds exactly in phase HELD, and refers to a storage from TRYING to STALE, or LEFT with one") {
  for (const Phase phase : kPhases) {
    for (const Mode mode : kModes) {
      const uint64_t word = slot_word(phase, mode, 7, tag_after(1, 3));
      CHECK_EQ(is_held(word), phase == Phase::kHeld);
      CHECK_EQ(is_left(word), phase == Phase::kLeft);
      CHECK_EQ(holds(word, Mode::kShared), phase == Phase::kHeld && mode == Mode::kShared);
      CHECK_EQ(holds(word, Mode::kExclusive), phase == Phase::kHeld && mode == Mode::kExclusive);
      CHECK_EQ(refers(word), phase != Phase::kFree && phase != Phase::kIdle && phase != Phase::kStolen);
    }
  }
  CHECK(!refers(left_word(tag_after(1, 3), Mode::kShared, 0)));
}

TEST("each binding of a slot has another tag, until its serial has come round once") {
  uint64_t word = 0;
  std::set<uint64_t> tags;
  for (uint32_t n = 0; n < 1u << (kStorageShift - kSerialShift); n++) {
    word = next_tag(word, 7);
    CHECK_EQ(owner_of(word), 7u);
    CHECK_EQ(word & ~kTagMask, 0u);
    CHECK(tags.insert(word).second);
    // What happens to the slot in between, and who has it then, does not count.
    word = slot_word(Phase::kHeld, Mode::kExclusive, 0xffffffff, word);
    if (n % 2 == 0) word = free_word(word);
  }
  CHECK(tags.count(next_tag(word, 7)) == 1);
}

TEST("what ends a binding keeps its serial, and what ends a hold keeps its tag") {
  for (const uint32_t owner : kOwners) {
    const uint64_t tag = tag_after(100, owner);
    const uint64_t word = slot_word(Phase::kHeld, Mode::kExclusive, 9, tag);
    CHECK_EQ(tag_of(idle_word(word)), tag);
    CHECK_EQ(tag_of(stolen_word(word)), tag);
    CHECK_EQ(tag_of(left_word(word, Mode::kExclusive, 9)), tag);
    CHECK_EQ(owner_of(free_word(word)), 0u);
    CHECK_EQ(next_tag(free_word(word), owner), next_tag(word, owner));
    CHECK(phase_of(free_word(word)) == Phase::kFree);
  }
}

TEST("the latch word keeps its owner's number beside its flags, up to the greatest number") {
  for (const uint64_t number : {uint64_t{1}, uint64_t{1} << 32, kNumbersMax - 1}) {
    for (uint64_t flags = 0; flags < 8; flags++) CHECK_EQ(latch_owner(latch_word(number) | flags), number);
  }
  CHECK_EQ(latch_owner(kLatchWaiters | kLatchDirty | kLatchCorrupt), 0u);
}

TEST("a turn of the detector changes the scan word, whatever its cursor says, also after the last turn") {
  for (const uint64_t word : {uint64_t{0}, uint64_t{5} << kTurnShift | 7, ~uint64_t{0}}) {
    for (const uint32_t cursor : {0u, 7u, kOwnersMax}) {
      CHECK(next_scan(word, cursor) != word);
      CHECK_EQ(scan_cursor(next_scan(word, cursor)), cursor);
    }
  }
}

TEST("a word of zeros is a slot that is free and a gate without storage, waiters or recovery") {
  CHECK(phase_of(0) == Phase::kFree);
  CHECK(!refers(0) && !is_held(0));
  CHECK_EQ(storage_of(0), 0u);
  CHECK(!is_recovering(0) && !has_waiters(0) && !wants_poke(0));
}

TEST("the flags of a gate are independent of its storage and of each other") {
  for (const uint32_t storage : kStorages) {
    for (uint64_t flags = 0; flags < 8; flags++) {
      const uint64_t gate = gate_word(storage) | flags;
      CHECK_EQ(storage_of(gate), storage);
      CHECK_EQ(is_recovering(gate), (flags & kGateRecovering) != 0);
      CHECK_EQ(has_waiters(gate), (flags & kGateQueued) != 0);
      CHECK_EQ(with_storage(gate, 99), gate_word(99) | flags);
    }
  }
}

TEST("a gate wants a poke exactly if somebody is queued and nobody was poked") {
  for (uint64_t flags = 0; flags < 8; flags++) {
    const bool queued = (flags & kGateQueued) != 0;
    const bool poked = (flags & kGatePoked) != 0;
    CHECK_EQ(wants_poke(gate_word(3) | flags), queued && !poked);
  }
}

TEST("the epoch of a gate changes with its storage and with a recovery, not with its queue") {
  const uint64_t gate = gate_word(5);
  CHECK_EQ(epoch_of(gate | kGateQueued), epoch_of(gate));
  CHECK_EQ(epoch_of(gate | kGateQueued | kGatePoked), epoch_of(gate));
  CHECK(epoch_of(gate | kGateRecovering) != epoch_of(gate));
  CHECK(epoch_of(gate_word(6)) != epoch_of(gate));
}

}  // namespace
