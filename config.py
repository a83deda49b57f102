"""CONFIG: the one dictionary you edit. Every key is checked before any work starts; a misspelt one is named.

Change single values for one run without editing: python main.py --set epochs=5 --set batch_size=8
Relative paths start from the folder of this file.
"""

# Blocks for common hardware: put the name of yours into the last line of CONFIG.
CPU = {
    "batch_size": 8,  # complexes per forward pass; "auto" = what the memory of the device holds
    "gradient_accumulation_steps": 1,  # forward passes per optimizer step
    "visnet_hidden_channels": 64,
    "visnet_num_layers": 3,
    "visnet_num_heads": 8,
    "visnet_num_rbf": 32,
    "visnet_lmax": 1,
}
GPU_6GB = {
    "batch_size": 16,
    "gradient_accumulation_steps": 1,
    "visnet_hidden_channels": 128,
    "visnet_num_layers": 6,
    "visnet_num_heads": 8,
    "visnet_num_rbf": 32,
    "visnet_lmax": 1,
}
GPU_16GB = {
    "batch_size": 16,
    "gradient_accumulation_steps": 1,
    "visnet_hidden_channels": 256,
    "visnet_num_layers": 6,
    "visnet_num_heads": 8,
    "visnet_num_rbf": 64,
    "visnet_lmax": 1,
}

CONFIG = {
    # Data: what to learn from
    "dataset_path": None,  # folder with the complexes (PDBbind layout); None = the built-in demo set
    "index_file": None,  # PDBbind index, CoreSet.dat or your own CSV; None = searched in dataset_path
    "structure": "auto",  # 'protein', 'pocket' or 'auto' (pocket file if there is one, else protein)
    "affinity_kinds": ["Kd", "Ki", "IC50"],
    "censored_labels": "drop",  # labels with < or >: 'drop', or 'bound' (a prediction beyond the bound is no error)
    "max_resolution": None,  # Å; entries with a worse one are left out; None = no limit
    "keep_nmr": True,  # entries solved by NMR, which have no resolution
    "keep_covalent": False,  # entries whose remark says that the ligand is bound covalently
    "keep_incomplete_ligands": False,
    "keep_multi_ligands": False,  # entries whose label belongs to more than one ligand, such as (ATP/PHE)
    "max_failed_fraction": 0.5,  # of the complexes; more that cannot be used stop a training before it begins
    "train_split": 0.8,  # fraction of the complexes
    "validation_split": 0.1,  # fraction; what is left is the test set
    "split": "random",  # 'random', 'time' (by release year), 'cluster', 'scaffold' or 'file'
    "split_file": None,  # for 'file': JSON with the lists train, validation and test, or a text list of test codes
    "split_folds": None,  # number of folds of a cross-validation; None = one split by the fractions above
    "split_fold": 0,  # which of the folds to test on, from 0; "all" = each, one training after the other
    "split_seed": None,  # seed that chooses the test set; None = seed
    "cluster_sequence_identity": 0.5,  # complexes are linked above this when their ligands are alike too ...
    "cluster_ligand_similarity": 0.9,  # ... above this Tanimoto similarity (ECFP4); they are also linked ...
    "cluster_same_protein": 0.9,  # ... above this sequence identity, whatever the ligands
    # Graphs: any change of these seven builds a new cache folder
    "pocket_radius": 8.0,  # Å; residues with an atom this near the ligand are in the graph
    "interaction_cutoff": 6.0,  # Å; every protein-ligand pair this near is an edge, no neighbour cap
    "visnet_cutoff": 4.5,  # Å; pairs of protein atoms this near are an edge
    "visnet_max_neighbors": 32,  # nearest protein neighbours kept per protein atom
    "keep_waters": False,
    "keep_ions": True,
    "keep_cofactors": True,
    # Where graphs are kept, and who builds them
    "processed_data_dir": "processed_data",
    "processing_num_workers": 2,  # processes that build graphs; 0 = build in the main process
    "processing_timeout_s": 60,  # seconds for one complex before its worker is replaced
    "processing_memory_gb": 4,  # GB for one worker (Linux only)
    # Model: hidden channels, layers, heads, radial functions and lmax come from the hardware block
    "visnet_vector_norm": "rms",  # 'rms' (smooth), 'max_min' (as published) or 'none'
    "dropout_rate": 0.1,
    # What an epoch shows of a complex, drawn anew each time
    "coordinate_noise": 0.05,  # Å, standard deviation of each coordinate of each atom
    "decoy_fraction": 0.1,  # of the complexes have their ligand displaced, and must then score lower
    # Training
    "epochs": 12,  # 12 are enough for the demo set; PDBbind wants 50 or more
    "learning_rate": 2e-3,
    "optimizer": "adam",  # 'adam' or 'adamw'
    "weight_decay": 0.0,
    "ranking_weight": 0.0,  # of a loss on pairs within a batch that are predicted in the wrong order; 0 = off
    "scheduler": "cosine",  # 'cosine' (after warmup_epochs) or 'plateau'
    "warmup_epochs": 1,
    "plateau_factor": 0.5,  # 'plateau': the learning rate is multiplied by this ...
    "plateau_patience": 5,  # ... after this many epochs without a better validation RMSE
    "gradient_clip_norm": 10.0,
    "ema_decay": 0.98,  # moving average of the weights, used to validate and predict; 0 = off
    "gaussian_process": True,  # after training, join the network with one on what touches what; takes seconds
    "early_stopping_patience": 20,  # epochs without a better validation RMSE; 0 = never stop early
    "max_atoms_per_batch": None,  # a batch that would hold more atoms is closed earlier; None = no limit
    "max_edges_per_batch": None,  # the same for directed edges
    "message_passing": "auto",  # 'keep' (fastest), 'fast', 'lean' (least memory) or 'auto' (the first that fits)
    "precision": "auto",  # 'fp32', 'tf32', 'bf16', 'fp16' or 'auto' (GPU: bf16, else fp16; CPU: fp32)
    "device": "auto",  # 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'
    "cpu_processes": "auto",  # on a CPU: processes that share each batch; 'auto' = one a core, and one for short runs
    "loader_num_workers": 0,  # processes that collate batches; the graphs are in memory, 0 is fast
    "max_skipped_in_a_row": 20,  # batches with NaN or Inf, or that do not fit, before the run stops
    "max_skipped_fraction": 0.5,  # of an epoch's batches before the run stops
    "members": 1,  # networks trained one after the other, with the seeds seed, seed + 1, ...; score with all of them
    "seed": 42,
    # What a run leaves
    "checkpoint_dir": "checkpoints",
    "results_dir": "results",
    "checkpoint_every_batches": 200,  # besides the checkpoint after each epoch; 0 = only that
    "manual_save_trigger_file": "checkpoints/SAVE_NOW.flag",  # create this file to save at once
    "profile": False,  # write results/profile.txt: where the time of the first batches goes
    "tensorboard": False,  # write the columns of history.csv for TensorBoard, too (pip install tensorboard)
    # Hardware: CPU, GPU_6GB or GPU_16GB
    **CPU,
}
