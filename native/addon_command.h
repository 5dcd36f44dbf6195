// What the command `proclock` asks of a system, beyond locks: to give the file of a namespace back, and to have a program end
// with us. None of it belongs to a thread or holds anything.
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

inline void set_command_calls(Napi::Object exports) {
  exports.Set("prune", Napi::Function::New(exports.Env(), prune, "prune"));
  exports.Set("startEnding", Napi::Function::New(exports.Env(), start_ending, "startEnding"));
  exports.Set("reap", Napi::Function::New(exports.Env(), reap, "reap"));
}

}  // namespace proclock::addon

#endif  // PROCLOCK_SUPPORTED
