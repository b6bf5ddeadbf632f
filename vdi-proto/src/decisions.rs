//! Where the published documents are silent or contradict each other: what this project decided, and why.
//!
//! | matter | decision |
//! |---|---|
//! | OpenDevice in Active (client) | The state table says VD_E_PROTOCOL, yet a set of n devices needs n opens. A device not yet open opens; one already open is VD_E_PROTOCOL; when all are open, VD_E_OPEN. |
//! | Close in Active with open devices (client) | VD_E_OPEN, the set is aborted, and it is closed all the same: the function's page against the table. |
//! | When is a set normally terminated? | When every device has returned VD_E_CLOSE, whichever process had opened it. |
//! | A secondary's Close | Looks at the devices that this secondary opened, not at those of others: a worker may leave while the work goes on. |
//! | Joining a set whose work has ended | VD_E_PROTOCOL. |
//! | Server's calls in Connected and after the end | See the rows marked D in [`crate::set::server`]. |
//! | Handles in an aborted or closed set | "Not open": VD_E_PROTOCOL. |
//! | The address for GetBufferHandle | Exactly the data start of a buffer that an outstanding command of this process holds. |
//! | The life of a handle | It dies when its command is completed or aborted, also when the same memory is lent again. |
//! | Completing a command whose buffer is still leased | VD_E_BUSY, and the command stays outstanding. Leases of the completing process count too. |
//! | VD_E_QUEUE_FULL and VD_E_IO_ERROR | Have no published value: `0x8077f001` and `0x8077f002`. |
//! | Queue depth | [`crate::device::QUEUE_DEPTH`] commands a device, all devices alike; `maxIODepth` stays 4 as documented. |
//! | Which completions put a device into IO-ERROR | Every code but ERROR_SUCCESS, as the text says; also the end of data. |
//! | CloseDevice with outstanding commands | They complete with ERROR_OPERATION_ABORTED on the server's side; their buffers are not lent again in this set, since the client may still hold them. |
//! | Bad terms of a server in BeginConfiguration | VD_E_INVALID; the documents name no status. |
//! | The server's fields in a client's VDConfig | Passed over at Create: clients reuse the struct of an earlier set. |
//! | softFileMarkBlockSize, EOMWarningSize (client) | A soft filemark is 0 or a power of two from 512 to 65536; a warning zone is for VDF_Removable only, since the server can only go on to another medium. Else VD_E_NOTSUPPORTED. |
//! | VDC_Complete in a restore | Not agreed on, even where the client asks: there is nothing to finish. |
//! | Largest prefix zone | [`crate::config::MAX_PREFIX_ZONE`]; the documents give none. |
//! | Names | 1 to 128 characters without backslash and control characters; instances up to 16. |
//! | OpenDevice of a name that the server has not announced yet | The client's call waits until the server has opened all its devices; then an unknown name is VD_E_INVALID. |
//! | Death of a secondary | Aborts the set, like that of the server or the primary, unless every device that it had opened had returned VD_E_CLOSE. In the vendor's implementation only those two are noticed. |
//! | GetCommand again after VD_E_CLOSE | VD_E_CLOSE again while other devices of the set are open; then the table's VD_E_PROTOCOL. |
//! | Death of the server after it closed all devices | Not noticed: the client's work had ended well. |
//! | Words in shared memory that somebody else wrote over | Records, places of buffers, device words and names bear keyed seals ([`crate::seal`]); without its seal a word is a violation, which aborts the set. |
//!
//! # What the simulated server and the ready-made media do
//!
//! | matter | decision |
//! |---|---|
//! | Which medium is in a removable device | Medium 1 when it is opened; VDC_Load comes for 2 and up. |
//! | Changing the medium in a backup | After ERROR_END_OF_MEDIA: ClearError, what is not stored again, Flush, so that the medium that leaves is durable, then Load. |
//! | How much is pending on a removable device | At most EOMWarningSize bytes, but at least one Write; without a warning zone whatever the queue holds. |
//! | Errors that a server recovers from | ERROR_IO_DEVICE and ERROR_NO_SYSTEM_RESOURCES of Read, Write, WriteMark, Load and positioning, up to three times in a row without a byte of progress. Never of Flush, Complete, Snapshot, MountSnapshot and ClearError: what could not be made durable once may be lost although it succeeds the second time. |
//! | Bytes reported with an error | Count as transferred; those of a Write have to be a multiple of BLOCKSIZE. On devices without random access nothing may be stored behind a Write that was not. |
//! | When ClearError comes | Before the next command; not at all where none follows, as after the last Read of a restore. |
//! | VDC_Discard | Comes to every device of a backup that fails for a reason of the server's own, before the set is aborted; not to one that is in IO-ERROR, which can take nothing but ClearError. |
//! | VDC_Complete in a snapshot backup | After Snapshot, where it was agreed on. |
//! | Order of a snapshot backup | Catalog; PrepareToFreeze where asked for; the database is frozen; FileInfoBegin, the list, FileInfoEnd where asked for; the rest of the metadata; Snapshot; the database is thawed. No Flush: nothing but close follows Snapshot for clients that do not ask for Complete. |
//! | Where a tape is after a filemark was met | Behind it going forward, in front of it going backward. |
//! | Running out of tape | Past the data: ERROR_NO_DATA_DETECTED, at its end. Past the beginning: ERROR_BEGINNING_OF_MEDIA, at the beginning. |
//! | Block addresses | Blocks and filemarks before the position; the beginning is 0. |
//! | softFileMarkBlockSize | Is validated and passed on; WriteMark and SkipMarks come either way, since it is the client that implements soft filemarks. |
