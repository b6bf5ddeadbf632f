//! The files that programs in C are built with, and the examples.

pub mod header {
    //! `include/vdi_c.h`
    //! ```c
    #![doc = include_str!("../include/vdi_c.h")]
    //! ```
}
pub mod pkg_config {
    //! `vdi_c.pc`
    //! ```text
    #![doc = include_str!("../vdi_c.pc")]
    //! ```
}
pub mod examples {
    //! The agents of the folder `examples`.
    //!
    //! # C
    //! ```c
    #![doc = include_str!("../examples/agent.c")]
    //! ```
    //! # Python
    //! ```python
    #![doc = include_str!("../examples/agent.py")]
    //! ```
}
