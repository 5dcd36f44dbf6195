// What the command `proclock` asks of a system, beyond locks: to give the file of a namespace back, to have a program end with us,
// and what other processes are. None of it belongs to a thread or holds anything.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "runtime/process.h"

#ifdef PROCLOCK_SUPPORTED

namespace proclock::addon {

inline bool check_command(const Napi::CallbackInfo& info, bool right) {
  if (!right) {
    Napi::TypeError::New(info.Env(), "proclock: wrong arguments for the native part")
        .ThrowAsJavaScriptException();
  }
  return right;
}

// prune(segment, group, remove): status. Without `remove` it only tells whether it could be removed.
inline Napi::Value prune(const Napi::CallbackInfo& info) {
  if (!check_command(info,
                     info.Length() == 3 && info[0].IsString() && info[1].IsNumber() && info[2].IsBoolean()))
    return info.Env().Undefined();
  System::Memory memory;
  OpenFailure failure;
  const Status status =
      memory.prune(info[0].As<Napi::String>().Utf8Value().c_str(), info[1].As<Napi::Number>().Int64Value(),
                   &failure, info[2].As<Napi::Boolean>().Value());
  return Napi::Number::New(info.Env(), static_cast<int32_t>(status));
}

inline std::vector<std::string> strings_of(const Napi::Array& array) {
  std::vector<std::string> strings;
  for (uint32_t i = 0; i < array.Length(); i++) {
    if (array.Get(i).IsString()) strings.push_back(array.Get(i).As<Napi::String>().Utf8Value());
  }
  return strings;
}

// startEnding(argv, env): the pid of a program that is killed when this process ends, or an errno below 0
inline Napi::Value start_ending(const Napi::CallbackInfo& info) {
  if (!check_command(info, info.Length() == 2 && info[0].IsArray() && info[1].IsArray()))
    return info.Env().Undefined();
  const std::vector<std::string> argv = strings_of(info[0].As<Napi::Array>());
  const std::vector<std::string> env = strings_of(info[1].As<Napi::Array>());
  if (!check_command(info, !argv.empty())) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), System::start_ending(argv, env));
}

// reap(pid): how it ended, as its exit code or 256 + its signal; -1: it runs. Other children that have ended go as well.
inline Napi::Value reap(const Napi::CallbackInfo& info) {
  if (!check_command(info, info.Length() == 1 && info[0].IsNumber())) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), System::reap(info[0].As<Napi::Number>().Int32Value()));
}

// lookAt(pid, startTime, pidNamespace, withCommand): [stopped, command], or undefined where nothing can be told
inline Napi::Value look_at(const Napi::CallbackInfo& info) {
  if (!check_command(info, info.Length() == 4 && info[0].IsNumber() && info[1].IsNumber() &&
                               info[2].IsNumber() && info[3].IsBoolean()))
    return info.Env().Undefined();
  ProcessIdentity identity;
  identity.pid = info[0].As<Napi::Number>().Int32Value();
  identity.start_time = static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value());
  identity.pid_ns = static_cast<uint64_t>(info[2].As<Napi::Number>().Int64Value());
  ProcessDetails details;
  if (!System::look_at(identity, info[3].As<Napi::Boolean>(), &details)) return info.Env().Undefined();
  Napi::Array result = Napi::Array::New(info.Env(), 2);
  result.Set(0u, Napi::Boolean::New(info.Env(), details.stopped));
  result.Set(1u, Napi::String::New(info.Env(), details.command));
  return result;
}

// isInForeground(): whether the keys of the terminal send their signals to this process
inline Napi::Value is_in_foreground(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), System::is_in_foreground());
}

inline void set_command_calls(Napi::Object exports) {
  exports.Set("prune", Napi::Function::New(exports.Env(), prune, "prune"));
  exports.Set("startEnding", Napi::Function::New(exports.Env(), start_ending, "startEnding"));
  exports.Set("reap", Napi::Function::New(exports.Env(), reap, "reap"));
  exports.Set("lookAt", Napi::Function::New(exports.Env(), look_at, "lookAt"));
  exports.Set("isInForeground", Napi::Function::New(exports.Env(), is_in_foreground, "isInForeground"));
}

}  // namespace proclock::addon

#endif  // PROCLOCK_SUPPORTED
