// Where the actors of a run are, what they did last, and how a run fails.
#pragma once

#include "sim_actor.h"

namespace sim {

class Stage {
 public:
  [[noreturn]] void fail(const char* what);
  const char* (*describe)() = nullptr;  // the run, for the message of a failure

  // The actors of this run.
  struct Range {
    Actor* first;
    Actor* last;
    Actor* begin() const { return first; }
    Actor* end() const { return last; }
  };
  Range actors() { return {actor_.data(), actor_.data() + actors_}; }
  const Plan& plan() const { return plan_; }
  uint64_t ticks() const { return ticks_; }
  bool weak() const { return running_ != nullptr && plan_.weak; }

  Random random;
  uint64_t now_ns = 0;
  bool verbose = false;

 protected:
  ~Stage() = default;

  // ---- the trace

  struct Traced {
    uint8_t actor;
    char kind;
    uint64_t now_ns;
    Site site;
    const char* doing;
  };
  void trace(char kind, const Site& site) { trace_for(*running_, kind, site); }
  void trace_for(const Actor& actor, char kind, const Site& site) {
    Traced& entry = traces_[traced_++ % kTraces];
    entry = {static_cast<uint8_t>(actor.id), kind, now_ns, site, actor.doing};
    if (verbose) print_trace(entry);
  }
  void print_trace(const Traced& entry) {
    const char* name = strrchr(entry.site.file, '/');
    fprintf(stderr, "  %10llu actor %d %c %s %s:%d (%s)\n", static_cast<unsigned long long>(entry.now_ns),
            entry.actor, entry.kind, entry.site.function, name == nullptr ? entry.site.file : name + 1,
            entry.site.line, entry.doing);
  }

  static constexpr uint32_t kTraces = 256;

  Plan plan_;
  std::array<Actor, kActorsMax> actor_;
  int actors_ = 0;
  Actor* running_ = nullptr;
  uint64_t ticks_ = 0;
  Traced traces_[kTraces];
  uint64_t traced_ = 0;
};

inline void Stage::fail(const char* what) {
  fflush(stdout);
  fprintf(stderr, "  %s%s%s\n", what, describe == nullptr ? "" : ": ", describe == nullptr ? "" : describe());
  if (!verbose) {
    const uint64_t from = traced_ > 60 ? traced_ - 60 : 0;
    for (uint64_t n = from; n < traced_; n++) print_trace(traces_[n % kTraces]);
  }
  fflush(nullptr);
  _exit(harness::kFailed);
}

}  // namespace sim
