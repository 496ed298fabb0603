#pragma once

// The native thread of one model, and how work and results cross between it and Node's thread.
//
// Ownership. ModelState (engine, backend, optimizers) is created, used and destroyed on the session's
// thread only: backends are single-threaded, and a device context may be bound to a thread. A Job is
// created and destroyed on Node's thread, because it holds JavaScript references; the session's thread
// merely runs it. One job at a time, so no queue and no hidden ordering.
//
// Lifetime. A running thread owns itself (self_) until Node's thread has joined it: after its last
// event, or in the cleanup hook of the environment (process.exit, worker.terminate, natural exit),
// whichever comes first. The hook waits for the job that runs, because nothing can interrupt a kernel;
// afterwards events that are still queued arrive with a null environment and touch nothing.
// The thread-safe function is referenced only while a job runs, so an idle model lets the process end.

#include <napi.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "addon/failure.h"

namespace loko::addon {

class ModelState;

/// One asynchronous call from JavaScript.
struct Job {
  explicit Job(Napi::Env env) : deferred(env) {}

  std::function<void(ModelState&)> run;           // on the session's thread; may throw
  std::function<Napi::Value(Napi::Env)> resolve;  // on Node's thread, the promise's value
  Napi::Promise::Deferred deferred;
  Napi::ObjectReference session;  // keeps the session's object from the garbage collector
  Napi::ObjectReference target;   // and the memory that `run` writes to
  std::optional<Failure> failure;
};

class SessionThread : public std::enable_shared_from_this<SessionThread> {
 public:
  /// `makeState` runs on the new thread. The thread starts with the first job.
  SessionThread(Napi::Env env, std::function<std::unique_ptr<ModelState>()> makeState);
  ~SessionThread();
  SessionThread(const SessionThread&) = delete;
  SessionThread& operator=(const SessionThread&) = delete;

  // All on Node's thread.
  bool busy() const { return job_ != nullptr; }
  bool finished() const { return finished_; }
  /// Needs !busy() and !finished().
  Napi::Promise start(std::unique_ptr<Job> job);
  /// Lets the running job end, then frees the model on its thread. Idempotent, does not wait.
  void finish();
  /// Tells V8 how many bytes the model holds, so that it collects forgotten ones in time.
  void account(std::int64_t bytes);

 private:
  enum class Event : std::uintptr_t { kJobDone = 1, kStopped };
  static void onEvent(Napi::Env env, Napi::Function, SessionThread* self, void* event);
  using EventQueue = Napi::TypedThreadSafeFunction<SessionThread, void, onEvent>;

  void launch();
  void loop();
  void settle(Napi::Env env);
  void join();
  static void onTeardown(void* self);

  Napi::Env env_;
  std::function<std::unique_ptr<ModelState>()> makeState_;

  // Node's thread only.
  std::unique_ptr<Job> job_;
  bool finished_ = false;
  std::int64_t accountedBytes_ = 0;
  std::thread thread_;
  std::shared_ptr<SessionThread> self_;
  EventQueue events_;

  // Both threads.
  std::mutex mutex_;
  std::condition_variable changed_;
  Job* pending_ = nullptr;
  bool stop_ = false;
};

}  // namespace loko::addon
