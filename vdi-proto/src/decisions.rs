//! Decisions where the published documents are silent or contradict each other, and why.
//!
//! | subject | decision |
//! |---|---|
//! | OpenDevice in Active (client) | An unopened device opens. A device that is already open is VD_E_PROTOCOL. If all are open, VD_E_OPEN. The state table says VD_E_PROTOCOL, but a set of n devices needs n calls. |
//! | Close in Active with open devices (client) | VD_E_OPEN. The set is aborted and closed all the same. The function's page says so; the state table says NOERROR. |
//! | Normal termination of a set | It is reached when every device has returned VD_E_CLOSE, regardless of which process opened the device. |
//! | Close by a secondary | It checks only the devices that this secondary has opened. A worker may leave while the work goes on. |
//! | Joining a set whose work has ended | VD_E_PROTOCOL. |
//! | The server's calls in Connected and after the end | See the rows marked **D** in [`crate::set::server`]. |
//! | Handles in an aborted or closed set | VD_E_PROTOCOL: the set is not open. |
//! | The address for GetBufferHandle | Exactly the data start of a buffer that an outstanding command of this process holds. |
//! | The lifetime of a handle | It ends when its command completes or is aborted, also when the same buffer is lent again. |
//! | Completing a command whose buffer is leased | VD_E_BUSY; the command stays outstanding. A lease of the completing process counts too. |
//! | Alignment of buffers | A power of two up to 65536. Greater alignments are VD_E_INVALID. |
//! | VD_E_QUEUE_FULL and VD_E_IO_ERROR | `0x8077f001` and `0x8077f002`; no value is published. |
//! | Queue depth | [`crate::device::QUEUE_DEPTH`] commands per device. `maxIODepth` stays 4, as documented. |
//! | Completions that put a device into IO-ERROR | Every code except ERROR_SUCCESS, as the text says. This includes the end of data. |
//! | CloseDevice with outstanding commands | They complete with ERROR_OPERATION_ABORTED on the server's side. Their buffers are not lent again in this set, since the client may still hold them. |
//! | Buffers and commands | A Read or Write has a buffer; every other command has none. A command that breaks this is a violation. |
//! | Bad terms of a server in BeginConfiguration | VD_E_INVALID; the documents name no status. |
//! | The server's fields in a client's VDConfig | Ignored at Create. Clients reuse the struct of an earlier set. |
//! | softFileMarkBlockSize, EOMWarningSize (client) | A soft filemark is 0 or a power of two from 512 to 65536. A warning zone needs VDF_Removable: without it the server cannot change to another medium. Everything else is VD_E_NOTSUPPORTED. |
//! | VDC_Complete in a restore | Not negotiated, even if the client requests it: a restore has nothing to finish. |
//! | Greatest prefix zone | [`crate::config::MAX_PREFIX_ZONE`]; the documents give none. |
//! | Names | 1 to 128 characters without backslash and control characters. Instances have up to 16. |
//! | OpenDevice with a name that the server has not announced yet | The client's call waits until the server has opened all its devices. Then an unknown name is VD_E_INVALID. |
//! | Death of a secondary | It aborts the set, like the death of the server or the primary, unless every device that it had opened has returned VD_E_CLOSE. The vendor's implementation notices only the server and the primary. |
//! | GetCommand again after VD_E_CLOSE | VD_E_CLOSE while other devices of the set are open; then VD_E_PROTOCOL, as the state table says. |
//! | Death of the server after it closed all devices | Ignored: the work has ended normally. |
//!
//! Decisions about the simulated server and about media are in the simulator's documentation.
