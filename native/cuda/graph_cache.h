#pragma once

// Lists of steps as CUDA graphs: a whole forward or backward pass is one launch.
//
// A list runs eagerly the first time it meets a frame, is captured the second time and launched from then
// on. Where it cannot be captured it goes on running eagerly: whatever else is in the process can make a
// capture invalid (a library that synchronises the device), and a driver may refuse a graph. What a graph
// holds are addresses and shapes; so it is keyed by everything that they follow from, and all graphs are
// dropped when memory moves (Context::generation).

#include <cuda_runtime.h>

#include <cstdint>
#include <list>
#include <utility>

#include "core/backend.h"
#include "cuda/launch.h"

namespace loko::cuda {

class GraphCache {
 public:
  GraphCache() = default;
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;
  ~GraphCache() { clear(); }

  void clear();
  /// Graphs of a list that is about to change, or whose memory another list was given.
  void forget(const Step* steps);

  /// A list in a frame. The weights and the factor of a Gram matrix by their addresses on the device: another
  /// optimizer's may have the same object's address on the host.
  struct Pass {
    const Step* steps;
    const Frame& frame;
    const float* gramWeights;
    const float* factor;
  };

  /// Puts on the stream what enqueue() puts there.
  template <class Enqueue>
  void run(const Pass& pass, std::int64_t generation, cudaStream_t stream, const Enqueue& enqueue) {
    Entry& entry = find(pass, generation);
    if (entry.met && !entry.refused && entry.executable == nullptr) {
      entry.executable = captured(stream, enqueue);
      entry.refused = entry.executable == nullptr;
    }
    if (entry.executable != nullptr) {
      check(cudaGraphLaunch(entry.executable, stream), "a recorded pass");
    } else {
      enqueue();
      entry.met = true;
    }
  }

 private:
  struct Key {
    const Step* steps = nullptr;
    int batch = 0, rows = 0, gramRows = 0, factorRows = 0;
    std::int64_t firstRow = 0;
    bool reduce = false, gram = false;
    const float* gramWeights = nullptr;
    const float* factor = nullptr;

    friend bool operator==(const Key& a, const Key& b) {
      return a.steps == b.steps && a.batch == b.batch && a.rows == b.rows &&
             a.gramRows == b.gramRows && a.firstRow == b.firstRow && a.reduce == b.reduce &&
             a.gram == b.gram && a.gramWeights == b.gramWeights && a.factor == b.factor &&
             a.factorRows == b.factorRows;
    }
  };
  struct Entry {
    Key key;
    bool met = false, refused = false;
    cudaGraphExec_t executable = nullptr;
  };

  Entry& find(const Pass& pass, std::int64_t generation);
  static void destroy(Entry& entry);

  /// Null where it cannot be captured. An error that is not the capture's own comes again when the pass is
  /// enqueued.
  template <class Enqueue>
  static cudaGraphExec_t captured(cudaStream_t stream, const Enqueue& enqueue) {
    if (failed(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal))) return nullptr;
    bool whole = true;
    try {
      enqueue();
    } catch (const Error&) {
      whole = false;
    }
    cudaGraph_t graph = nullptr;
    whole = !failed(cudaStreamEndCapture(stream, &graph)) && whole;
    cudaGraphExec_t executable = nullptr;
    if (whole && failed(cudaGraphInstantiate(&executable, graph, 0))) executable = nullptr;
    if (graph != nullptr) cudaGraphDestroy(graph);
    return executable;
  }

  static bool failed(cudaError_t error) {
    if (error != cudaSuccess) cudaGetLastError();  // forgets it, unless the device is lost
    return error != cudaSuccess;
  }

  std::list<Entry> entries_;  // the most recently used first
  std::int64_t generation_ = 0;
};

}  // namespace loko::cuda
