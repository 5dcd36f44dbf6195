// The two words on which everything turns: what can be packed can be read back, and predicates say what the tables say.
#include "../../native/words.h"

#include "harness.h"

namespace {

using namespace proclock;

constexpr Phase kPhases[] = {Phase::kFree, Phase::kIdle,      Phase::kTrying,
                             Phase::kHeld, Phase::kReleasing, Phase::kStale};
constexpr Mode kModes[] = {Mode::kShared, Mode::kExclusive};
constexpr uint32_t kStorages[] = {0, 1, 2, 4096, 0x7fffffff, 0xffffffff};

TEST("a slot word gives back the phase, the mode and the storage that were put into it") {
  for (const Phase phase : kPhases) {
    for (const Mode mode : kModes) {
      for (const uint32_t storage : kStorages) {
        const uint64_t word = slot_word(phase, mode, storage);
        CHECK(phase_of(word) == phase);
        CHECK(mode_of(word) == mode);
        CHECK_EQ(storage_of(word), storage);
        for (const Phase next : kPhases) CHECK_EQ(with_phase(word, next), slot_word(next, mode, storage));
      }
    }
  }
}

TEST("a slot holds exactly in phase HELD, and refers to a storage in every phase after IDLE") {
  for (const Phase phase : kPhases) {
    for (const Mode mode : kModes) {
      const uint64_t word = slot_word(phase, mode, 7);
      CHECK_EQ(is_held(word), phase == Phase::kHeld);
      CHECK_EQ(holds(word, Mode::kShared), phase == Phase::kHeld && mode == Mode::kShared);
      CHECK_EQ(holds(word, Mode::kExclusive), phase == Phase::kHeld && mode == Mode::kExclusive);
      CHECK_EQ(refers(word), phase != Phase::kFree && phase != Phase::kIdle);
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
