// Stream capture and graphs. A captured call becomes a node and is not executed; a launch of the
// instantiated graph is one piece of work of its stream that executes all nodes in the order in
// which they were captured, which respects every dependency.

#include <algorithm>
#include <utility>

#include "device.h"

using namespace loko::emulation;  // NOLINT: the API's functions are global

struct CUgraph_st {
  std::vector<std::shared_ptr<Work>> nodes;
};

struct CUgraphExec_st {
  std::vector<std::shared_ptr<Work>> nodes;
};

void loko::emulation::releaseGraphs(Device& d) {
  for (CUgraph_st* graph : d.graphs) delete graph;
  for (CUgraphExec_st* exec : d.graphExecs) delete exec;
  d.graphs.clear();
  d.graphExecs.clear();
  d.counters.liveGraphs = d.counters.liveGraphExecs = 0;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call(InCapture::kAllowed, [&](Device& d) {
    CUstream_st* target = findStream(d, stream);
    if (target == nullptr) return cudaErrorInvalidResourceHandle;
    if (target == &d.legacy) return cudaErrorStreamCaptureUnsupported;
    if (target->capture != nullptr) return cudaErrorIllegalState;
    target->capture = std::make_shared<Capture>();
    target->capture->origin = target;
    target->capture->mode = mode;
    target->capture->thread = std::this_thread::get_id();
    target->captured = target->joined = 0;
    auto& all = d.captures;
    all.erase(std::remove_if(all.begin(), all.end(), [](const auto& c) { return c.expired(); }),
              all.end());
    all.push_back(target->capture);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call(InCapture::kAllowed, [&](Device& d) {
    CUstream_st* target = findStream(d, stream);
    if (target == nullptr) return cudaErrorInvalidResourceHandle;
    if (graph == nullptr) return cudaErrorInvalidValue;
    *graph = nullptr;
    const std::shared_ptr<Capture> capture = target->capture;
    if (capture == nullptr) return cudaErrorIllegalState;
    if (capture->origin != target) {
      capture->invalid = true;
      return cudaErrorStreamCaptureUnmatched;
    }
    if (capture->mode != cudaStreamCaptureModeRelaxed &&
        capture->thread != std::this_thread::get_id())
      return cudaErrorStreamCaptureWrongThread;
    bool unjoined = false;
    for (CUstream_st* other : d.streams) {
      if (other->capture != capture) continue;
      unjoined = unjoined || (other != target && other->captured > other->joined);
      other->capture = nullptr;
    }
    const bool planned = d.failCaptureIn > 0 && --d.failCaptureIn == 0;
    if (capture->invalid || planned) return cudaErrorStreamCaptureInvalidated;
    if (unjoined) return cudaErrorStreamCaptureUnjoined;
    *graph = new CUgraph_st{capture->nodes};
    d.graphs.insert(*graph);
    ++d.counters.liveGraphs;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return call(InCapture::kAllowed, [&](Device& d) {
    CUstream_st* target = findStream(d, stream);
    if (target == nullptr) return cudaErrorInvalidResourceHandle;
    if (status == nullptr) return cudaErrorInvalidValue;
    *status = target->capture == nullptr ? cudaStreamCaptureStatusNone
              : target->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (exec == nullptr || d.graphs.count(graph) == 0 || flags != 0) return cudaErrorInvalidValue;
    *exec = new CUgraphExec_st{graph->nodes};
    d.graphExecs.insert(*exec);
    ++d.counters.liveGraphExecs;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return call(InCapture::kAllowed, [&](Device& d) {
    CUstream_st* target = findStream(d, stream);
    if (target == nullptr) return cudaErrorInvalidResourceHandle;
    if (d.graphExecs.count(exec) == 0) return cudaErrorInvalidValue;
    const cudaError_t error = submit(d, *target, [&d, nodes = exec->nodes] {
      for (const auto& node : nodes) {
        if (d.sticky != cudaSuccess) return;
        ++d.counters.graphNodes;
        (*node)();
      }
    });
    if (error == cudaSuccess) ++d.counters.graphLaunches;
    return error;
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (d.graphs.count(graph) == 0 || count == nullptr) return cudaErrorInvalidValue;
    if (nodes == nullptr) {
      *count = graph->nodes.size();
      return cudaSuccess;
    }
    for (std::size_t i = 0; i < *count; ++i)
      nodes[i] = i < graph->nodes.size() ? reinterpret_cast<cudaGraphNode_t>(graph->nodes[i].get())
                                         : nullptr;
    *count = std::min(*count, graph->nodes.size());
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (d.graphExecs.erase(exec) == 0) return cudaErrorInvalidValue;
    delete exec;
    --d.counters.liveGraphExecs;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call(InCapture::kAllowed, [&](Device& d) {
    if (d.graphs.erase(graph) == 0) return cudaErrorInvalidValue;
    delete graph;
    --d.counters.liveGraphs;
    return cudaSuccess;
  });
}
