// What all bindings share. Arguments come checked from Python; what memory safety needs is checked again, in brief.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "kernels.h"

namespace py = pybind11;

namespace nestvec {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

inline void need(bool condition, const char* what) {
  if (!condition) throw py::value_error(what);
}

template <class T>
T* output(Array<T>& a) {
  return a.mutable_data();  // throws on a read-only array
}

void bind_codes(py::module_& m, const Kernels& k);   // bind_codes.cpp
void bind_tokens(py::module_& m, const Kernels& k);  // bind_tokens.cpp
void bind_maxsim(py::module_& m, const Kernels& k);  // bind_maxsim.cpp

}  // namespace nestvec
