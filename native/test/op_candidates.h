#pragma once

// The backends that the tests of operations compare with the specification.
//
// With LOKO_TEST_DEVICE they are those of a real GPU. Otherwise they are ref, the CPU in every instruction
// set that this machine has, and the CUDA backend on an emulated device, in four ways.

#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "cuda/cublaslt.h"
#include "cuda/cuda_backend.h"

#ifndef LOKO_TEST_DEVICE
#include "cpu/cpu_backend.h"
#include "cpu/isa.h"
#include "cublaslt_standin.h"
#include "cuda_emulation/emulation.h"
#include "ref/ref_backend.h"
#endif

namespace loko::test {

struct Candidate {
  std::string name;
  double unitRoundoff;
  int maxThreads;           // counts worth comparing
  bool mayAllocate;         // on the host, inside run()
  bool rowsAreIndependent;  // k rows at once are the same bits as k passes
  std::function<std::unique_ptr<Backend>(int threads)> make;
};

// Half a unit in the last place of 24, 11 and 8 bits.
constexpr double kFloat32Roundoff = 0x1p-24, kTf32Roundoff = 0x1p-11, kBfloat16Roundoff = 0x1p-8;

#ifdef LOKO_TEST_DEVICE

inline Candidate onDevice(const char* name, double unitRoundoff, cuda::Precision precision,
                          int libraryRows) {
  return {name, unitRoundoff, 1, true, false, [precision, libraryRows](int) {
            // Kept for all cases: finding it includes a test of its products.
            static const std::shared_ptr<cuda::CublasLt> library = cuda::CublasLt::find();
            cuda::CudaOptions options;
            options.library = library;
            options.precision = precision;
            options.libraryRows = libraryRows;
            return cuda::makeCudaBackend(options);
          }};
}

inline const std::vector<Candidate>& candidates() {
  constexpr int kNever = 1 << 30, kOften = 17;
  static const std::vector<Candidate> all{
      onDevice("cuda float32", kFloat32Roundoff, cuda::Precision::kFloat32, kNever),
      onDevice("cuda float32, cuBLASLt", kFloat32Roundoff, cuda::Precision::kFloat32, kOften),
      onDevice("cuda tf32", kTf32Roundoff, cuda::Precision::kTf32, kOften),
      onDevice("cuda bfloat16", kBfloat16Roundoff, cuda::Precision::kBfloat16, kOften)};
  return all;
}

/// With LOKO_TEST_EVERY=n every nth case only, for tools that make a GPU slow.
inline std::vector<Candidate> candidatesForCase() {
  static std::size_t turn = 0;
  const char* every = std::getenv("LOKO_TEST_EVERY");
  const bool drawn = every == nullptr || turn % std::strtoul(every, nullptr, 10) == 0;
  ++turn;
  return drawn ? candidates() : std::vector<Candidate>{};
}
inline std::vector<Candidate> bfloat16Candidates() {
  return {candidates().back()};
}

#else

/// Where the depth of products is split, the number of shares follows from the number of rows. From
/// generation 9 on a kernel may start before the one ahead of it has ended.
struct Emulated {
  const char* name;
  double unitRoundoff;
  cuda::Precision precision;
  int generation, multiprocessors;
  bool library;
  emulation::Order order;
};

inline Candidate emulated(const Emulated& how) {
  return {
      how.name, how.unitRoundoff, 1, true, how.multiprocessors == 1 && !how.library, [how](int) {
        emulation::DeviceModel model;
        model.major = how.generation;
        model.multiprocessors = how.multiprocessors;
        emulation::setDeviceModel(model);
        emulation::setOrder(how.order, how.order, 7);
        cuda::CudaOptions options;
        options.precision = how.precision;
        if (how.multiprocessors == 1) options.splitBlocks = 0;
        if (how.library) {
          cuda::test::standIn().enqueue = [](cuda::LtStream stream, std::function<void()> work) {
            emulation::enqueue(reinterpret_cast<cudaStream_t>(stream), std::move(work));
          };
          options.library = std::make_shared<cuda::CublasLt>(cuda::test::standInApi());
          options.libraryRows = 17;
        }
        return cuda::makeCudaBackend(options);
      }};
}

inline const std::vector<Candidate>& emulatedCandidates() {
  using emulation::Order;
  static const std::vector<Candidate> all{
      emulated({"cuda float32", kFloat32Roundoff, cuda::Precision::kFloat32, 8, 1, false,
                Order::kForward}),
      emulated({"cuda float32, split, cuBLASLt", kFloat32Roundoff, cuda::Precision::kFloat32, 9, 64,
                true, Order::kReverse}),
      emulated({"cuda tf32", kTf32Roundoff, cuda::Precision::kTf32, 9, 8, true, Order::kShuffled}),
      emulated({"cuda bfloat16", kBfloat16Roundoff, cuda::Precision::kBfloat16, 9, 8, true,
                Order::kShuffled})};
  return all;
}

inline std::vector<Candidate> bfloat16Candidates() {
  return {emulatedCandidates().back()};
}

inline std::vector<Candidate> hostCandidates() {
  std::vector<Candidate> list{
      {"ref", 0x1p-53, 1, true, true, [](int) { return ref::makeRefBackend(); }}};
  for (const cpu::Isa isa : cpu::availableIsas()) {
    list.push_back({std::string("cpu ") + cpu::isaName(isa), kFloat32Roundoff, 3, false, true,
                    [isa](int threads) { return cpu::makeCpuBackend(threads, isa); }});
  }
  return list;
}

inline const std::vector<Candidate>& candidates() {
  static const std::vector<Candidate> all = [] {
    std::vector<Candidate> list = hostCandidates();
    list.push_back(emulatedCandidates()[0]);
    return list;
  }();
  return all;
}

/// An emulated device takes a hundred times as long as the CPU. Every second case runs on one of its four kinds,
/// in turn; with LOKO_EXHAUSTIVE in the environment, each on all of them.
inline std::vector<Candidate> candidatesForCase() {
  static std::size_t turn = 0;
  std::vector<Candidate> list = hostCandidates();
  const std::vector<Candidate>& emulated = emulatedCandidates();
  if (std::getenv("LOKO_EXHAUSTIVE") != nullptr) {
    list.insert(list.end(), emulated.begin(), emulated.end());
  } else if (turn++ % 2 == 0) {
    list.push_back(emulated[turn / 2 % emulated.size()]);
  }
  return list;
}

#endif

}  // namespace loko::test
