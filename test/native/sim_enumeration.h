// All schedules there are of two or three actors, with so many switches that nobody has to make; where one may die, also all
// steps at which it does. (Switches at the steps that others look at without the latch; memory is sequentially consistent.)
#pragma once

#include <optional>

#include "sim_thread.h"

namespace sim {

namespace enumeration {

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;

template <Mode mode>
void try_once(Thread& t) {
  if (t.acquire(0, {mode, false, false, 0})) t.release(0);
}
template <Mode mode>
void wait(Thread& t) {
  if (t.acquire(0, {mode, false, false, kForever})) t.release(0);
}
inline void steal(Thread& t) {
  t.steal(0);
  t.release(0);
}
inline void downgrade(Thread& t) {
  t.acquire(0, {kX, false, false, kForever});
  t.downgrade(0);
  t.release(0);
}
template <Mode mode>
void leave(Thread& t) {
  t.acquire(0, {mode, false, false, kForever});
  t.leave(0);
}
template <Mode mode>
void recover_and_take(Thread& t) {
  t.look_for_dead();
  wait<mode>(t);
}

struct Case {
  const char* name;
  uint32_t switches;
  bool dies;  // the second actor, anywhere
  int dead;   // so many readers have died holding before
  void (*bodies[3])(Thread&);
};

const Case kCases[] = {
    {"one recovers a dead reader, another one reads",
     3,
     false,
     1,
     {recover_and_take<kX>, try_once<kS>, nullptr}},
    {"two writers try", 3, false, 0, {try_once<kX>, try_once<kX>, nullptr}},
    {"a reader and a writer try", 3, false, 0, {try_once<kS>, try_once<kX>, nullptr}},
    {"two readers and a writer try", 2, false, 0, {try_once<kS>, try_once<kS>, try_once<kX>}},
    {"two writers wait", 2, false, 0, {wait<kX>, wait<kX>, nullptr}},
    {"a reader and a writer wait", 2, false, 0, {wait<kS>, wait<kX>, nullptr}},
    {"a holder and a thief", 2, false, 0, {wait<kX>, steal, nullptr}},
    {"two thieves", 2, false, 0, {steal, steal, nullptr}},
    {"a downgrade and a reader", 2, false, 0, {downgrade, wait<kS>, nullptr}},
    {"a downgrade and a writer", 2, false, 0, {downgrade, wait<kX>, nullptr}},
    {"a writer dies, another one waits", 2, true, 0, {wait<kX>, wait<kX>, nullptr}},
    {"a reader dies, a writer waits", 2, true, 0, {wait<kX>, wait<kS>, nullptr}},
    {"a thief dies, the robbed one comes back", 1, true, 0, {wait<kX>, steal, nullptr}},
    {"a writer's thread ends, another one waits", 2, false, 0, {leave<kX>, wait<kX>, nullptr}},
    {"a reader's thread ends, a writer waits", 2, false, 0, {leave<kS>, wait<kX>, nullptr}},
    {"two recover a dead reader", 2, false, 1, {recover_and_take<kX>, recover_and_take<kS>, nullptr}},
    {"one recovers a dead reader and dies", 1, true, 1, {wait<kX>, recover_and_take<kS>, nullptr}},
};

struct Role {
  std::optional<Thread> thread;
  void (*body)(Thread&) = nullptr;
};

inline void act(Actor&, void* argument) {
  Role& role = *static_cast<Role*>(argument);
  role.body(*role.thread);
  role.thread->finish();
}

inline const char* current;
inline const char* describe() { return current; }

inline uint64_t enumerate(const Case& the_case) {
  current = the_case.name;
  the_machine.describe = describe;
  static Role roles[3];
  Decisions decisions;
  uint64_t schedules = 0;
  do {
    decisions.begin();
    the_machine.begin(Plan(), 1, &decisions, &the_world);
    the_world.begin();
    for (int n = 0; n < 3 && the_case.bodies[n] != nullptr; n++) {
      Host& host = the_world.add_host();
      host.attach();
      Actor& actor = the_machine.add_actor(host, act, &roles[n]);
      roles[n].body = the_case.bodies[n];
      roles[n].thread.emplace(host, actor);
      roles[n].thread->open(0);
    }
    for (int n = 0; n < the_case.dead; n++) {
      Host& host = the_world.add_host();
      host.attach();
      SlotRef ref;
      uint64_t token;
      SIM_CHECK(host.arena->open_lock(name_of(World::name(0)), 9, &ref) == Status::kOk);
      SIM_CHECK(host.arena->try_acquire(ref, kS, Turn::kFront, &token) == Try::kAcquired);
      host.open = false;
      the_machine.gone++;
    }
    the_machine.preemptions_left = the_case.switches;
    the_machine.kills_left = the_case.dies;
    the_machine.run();
    the_world.inspect();
    schedules++;
  } while (decisions.advance());
  return schedules;
}

}  // namespace enumeration

}  // namespace sim
